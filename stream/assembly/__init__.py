"""The parts of a consumer, made from its options; `stream.assemble` puts them together."""

"""The compute that training, streaming and benchmarks share: events, engines, the NPLM test."""

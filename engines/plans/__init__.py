"""Compiling an encoder with TensorRT: precision, comparison, and the `.plan` file."""

"""Encoders on a GPU: by torch or TensorRT, through page-locked buffers, streams and graphs."""

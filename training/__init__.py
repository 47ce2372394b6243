"""Offline training: events to an encoder to an ONNX file."""

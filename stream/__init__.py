"""The live side: bytes in, significance out."""

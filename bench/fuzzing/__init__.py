"""Malformed messages and damaged files, and what the program makes of them."""

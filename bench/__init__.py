"""Measurements: each a ratio against a peer or a limit, saved as JSON with a machine stamp."""

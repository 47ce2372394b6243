"""The parts of `stream-scan`: the monitor over stored events."""

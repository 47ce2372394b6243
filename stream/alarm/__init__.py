"""What a window that alarmed leaves: its record, its place on the live page, its picture."""

"""One training: its options, its folder, what it prints and draws."""

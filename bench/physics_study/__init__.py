"""A study: one TOML file to engines, measurements, tables and figures. See `bench-physics`."""

"""TOML to attrs, with errors that name file, line and column."""

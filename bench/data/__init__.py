"""Data that tasks learn from. `scenes` is embedded: rendered on first use, with nothing to download."""

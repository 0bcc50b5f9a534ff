"""Recipes: one `get_config()` per file, each returning an `ml_collections.ConfigDict`."""

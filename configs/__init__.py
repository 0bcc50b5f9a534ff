"""Recipes: one `get_config()` per file, an `ml_collections.ConfigDict` each."""

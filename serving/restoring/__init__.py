"""Restoring photos, folders and videos through a model, remote or local."""

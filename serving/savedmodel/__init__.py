"""The SavedModel: its signatures, its graph, and the proof that it works."""

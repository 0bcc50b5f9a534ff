"""Recovering a mark from flat images that were marked."""

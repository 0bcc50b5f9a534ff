"""Recovers a mark from images that carry it: its place, its canvas, and the confidence in it."""

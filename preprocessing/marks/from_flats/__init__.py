"""Recovers a mark from watermarked flat images."""

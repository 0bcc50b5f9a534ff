"""Recovering a mark from pictures that carry it: where it lies, what it is, and how sure that is."""

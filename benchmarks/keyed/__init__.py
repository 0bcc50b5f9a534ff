"""Benchmarks of keyed restoration."""

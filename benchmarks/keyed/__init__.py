"""Keyed restoration, measured."""

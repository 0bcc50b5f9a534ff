"""Batch restoration by Apache Beam."""

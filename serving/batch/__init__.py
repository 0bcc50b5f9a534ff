"""Batch restoration with Apache Beam."""

"""Comparing two things fairly, and printing the figure."""

"""Fair comparisons, and printing their figures."""

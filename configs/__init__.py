"""What a run is: one recipe a file, and how our commands start and fail."""

"""The devices, workers and number format that a run computes with."""

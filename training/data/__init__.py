"""Turns TFRecords into the pairs that the network learns from."""

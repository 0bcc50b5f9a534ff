"""TFRecords to the pairs that the network learns from."""

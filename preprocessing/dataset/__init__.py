"""The dataset folder: its schema, the TFRecord framing and the integrity check."""

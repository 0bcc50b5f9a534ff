"""The dataset folder: its schema, the TFRecord framing, and the check of what was written."""

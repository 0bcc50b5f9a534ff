"""Converts images to TFRecords, and prepares watermarks."""

import common.environment  # noqa: F401  (before TensorFlow and Beam)

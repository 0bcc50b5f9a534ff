"""Trains a restoration network on TFRecords."""

import common.environment  # noqa: F401  (before TensorFlow)

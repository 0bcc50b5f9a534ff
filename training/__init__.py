"""TFRecords in, a trained restoration network out."""

import common.environment  # noqa: F401  (before TensorFlow)

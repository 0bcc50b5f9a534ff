"""Images in, TFRecords out."""

import common.environment  # noqa: F401  (before TensorFlow and Beam)

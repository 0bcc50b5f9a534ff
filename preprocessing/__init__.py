"""Images in, TFRecords out."""

import configs.environment  # noqa: F401  (before TensorFlow and Beam)

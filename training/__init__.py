"""TFRecords in, a trained restoration network out."""

import configs.environment  # noqa: F401  (before TensorFlow)

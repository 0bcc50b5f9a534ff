"""Whole paths through Cleanplate, to run and to learn from."""

import configs.environment  # noqa: F401  (before TensorFlow)

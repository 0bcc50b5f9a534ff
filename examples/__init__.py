"""Complete examples of using Cleanplate, to run and to learn from."""

import common.environment  # noqa: F401  (before TensorFlow)

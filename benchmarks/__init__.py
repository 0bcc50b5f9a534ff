"""One runnable script per claim in the README; each prints its figures beside their targets."""

import common.environment  # noqa: F401  (before TensorFlow)

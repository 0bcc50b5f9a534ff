"""One runnable script a claim in the README; each prints its figures beside what they are measured against."""

import common.environment  # noqa: F401  (before TensorFlow)

"""Exports trained networks as SavedModels, serves them, and restores photos with them."""

import os

import common.environment  # noqa: F401  (before TensorFlow)

# gRPC's C core logs to stderr errors that it also returns, and our commands report those in one line. Must be set
# before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

"""A trained network as a SavedModel, the servers that speak for it, and their client."""

import os

import common.environment  # noqa: F401  (before TensorFlow)

# gRPC's C core logs to stderr what it also returns; our commands say it in one line. Before grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

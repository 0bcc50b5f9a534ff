"""Process settings that must be in place before TensorFlow or Beam is imported.

The package `__init__` of `preprocessing`, `training` and `serving` imports this module for its side effects, so it runs
first for any entry point. It silences only startup noise that no user can act on; environment variables that the user
has set take precedence.
"""

import logging
import os
import warnings

# TensorFlow's C++ log shows CPU users cuDNN, cuFFT and TensorRT "errors" at every start. Errors that a user can act on
# are raised as Python exceptions; fatal messages are printed at any level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow Addons announces its end of life at every import; docs/reuse.md explains what that means for us.
warnings.filterwarnings("ignore", message=r"(?s).*TensorFlow Addons \(TFA\) has ended development.*")

# Text contained in messages at startup or export that no user can act on.
_NOISE = (
    "apitools not found",  # Beam, about Google Cloud's client: only gs:// paths need it, and they fail with a message
    "with unsupported characters which will be renamed",  # SavedModel, about names inside the graph
    "Writing fingerprint to",  # SavedModel
)


def _keep(record: logging.LogRecord) -> bool:
    return not any(noise in str(record.msg) for noise in _NOISE)


for _name in (None, "absl"):
    logging.getLogger(_name).addFilter(_keep)

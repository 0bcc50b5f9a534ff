"""Process settings that must be in place before TensorFlow or Beam is imported.

Imported for its effect by the package `__init__` of `preprocessing`, `training` and `serving`, so that it runs
first whichever entry point is used. Only start-up noise that no user can act on is silenced; what the user set
in the environment wins.
"""

import logging
import os
import warnings

# TensorFlow's C++ log greets CPU users with cuDNN, cuFFT and TensorRT "errors" at every start. What a user can
# act on arrives as a Python exception; fatal messages are printed at any level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow Addons announces its end of life at every import; DESIGN and README say what that means for us.
warnings.filterwarnings("ignore", message=r"(?s).*TensorFlow Addons \(TFA\) has ended development.*")

# Messages at start or export that no user can act on, by how they begin or what they contain.
_NOISE = (
    "apitools not found",  # Beam, of Google Cloud's client: matters only for gs:// paths, which fail with a message
    "with unsupported characters which will be renamed",  # SavedModel, of names inside the graph
    "Writing fingerprint to",  # SavedModel
)


def _keep(record: logging.LogRecord) -> bool:
    return not any(noise in str(record.msg) for noise in _NOISE)


for _name in (None, "absl"):
    logging.getLogger(_name).addFilter(_keep)

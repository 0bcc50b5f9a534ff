"""The models that come with Cleanplate, also where it was installed from a wheel.

python -m serving.server --model_base_path=$(python -m pretrained generic)

generic    a SavedModel's folder: restores marks that it has never seen
repair     a run's folder: the network with which `serving.key` repairs inverted marks
"""

from pathlib import Path

_HERE = Path(__file__).parent

GENERIC = _HERE / "generic"
REPAIR = _HERE / "repair"
PATHS = {"generic": GENERIC, "repair": REPAIR}

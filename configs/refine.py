"""Fine-tunes the repair network on one's own mark and pictures; `serving.key --refine` runs it.

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export \
        --refine=refine --refine.data.dir=tfrecords --workdir=runs/mark/refine

It starts from the repair network that comes along, and its source is the mark, unless they are named here.
"""

import ml_collections

from configs import repair


def get_config() -> ml_collections.ConfigDict:
    """Returns the repair network's recipe, shorter and gentler."""
    config = repair.get_config()
    config.source = ""
    config.learning_rate = 3e-4
    config.max_minutes = 10.0
    return config

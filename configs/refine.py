"""Fine-tunes the repair network on your own watermark and images; `serving.key --refine` runs it.

    python -m serving.key --canvas=mark.png --export_dir=runs/mark/export \
        --refine=refine --refine.data.dir=tfrecords --workdir=runs/mark/refine

It starts from the repair network that ships with the project, and its source is the watermark, unless set here.
"""

import ml_collections

from configs import repair


def get_config() -> ml_collections.ConfigDict:
    """Returns the repair network's recipe with fewer minutes and a lower learning rate."""
    config = repair.get_config()
    config.source = ""
    config.learning_rate = 3e-4
    config.max_minutes = 10.0
    return config

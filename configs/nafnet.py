"""A NAFNet instead of the U-Net: fewer weights, gates and local attention.

    python -m training.train --config=nafnet --workdir=runs/nafnet \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe with NAFNet."""
    config = default.get_config()
    config.model.name = "nafnet"
    return config

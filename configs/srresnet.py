"""The older noise2noise scripts' network, for comparison: at full resolution, each step costs many times the default's.

    python -m training.train --config=srresnet --workdir=runs/srresnet \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe with SRResNet, 16 residual blocks of 64 features."""
    config = default.get_config()
    config.model.name = "srresnet"
    return config

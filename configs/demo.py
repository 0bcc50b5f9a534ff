"""What `make demo` trains: a few minutes on two cores, Noise2Noise, stopped by the clock rather than a step count."""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe under a budget of minutes."""
    config = default.get_config()
    config.max_minutes = 5.0
    config.eval_every = 100
    config.log_every = 10
    config.checkpoint_every = 100
    config.val_crops = 24
    return config

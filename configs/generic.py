"""A model for watermarks it has never seen: random stamps, tiled or single, and random text, then saved as a JPEG.

    python -m preprocessing.watermark bank --count=400 --out=bank
    python -m training.train --config=generic --workdir=runs/generic --config.data.dir=tfrecords

Targets are clean: with several kinds of overlay followed by JPEG, a second corrupted copy would teach its losses too.
"""

import ml_collections

from configs import default

_TILED = "watermark:canvas=bank/*.png,layout=tile,opacity=0.6..1,scale=0.5..1.5,rotate=-45..45,tint=0..0.2"
_SINGLE = "watermark:canvas=bank/*.png,layout=single,opacity=0.6..1,scale=0.6..2,rotate=-10..10"
_TEXT = "text:occupancy=2..30,opacity=0.5..1"
_JPEG = "jpeg:quality=70..100"


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe with a family of overlays and a budget of hours."""
    config = default.get_config()
    config.source = f"{_TILED}+{_JPEG}@0.45|{_SINGLE}+{_JPEG}@0.25|{_TEXT}+{_JPEG}@0.25|clean"
    config.target = "clean"
    config.model.features = (48, 72, 96, 120)  # keeps the SavedModel that ships with the project below 8 MB
    config.data.crop, config.batch_size = 192, 8  # a word or two of a watermark fit into a crop
    config.covered_weight = 1.0  # with unknown watermarks, false positives are the more frequent error
    config.ema = 0.999
    config.steps = 200_000
    config.max_minutes = 120.0
    return config

"""The network that repairs what inverting a known watermark leaves wrong; `serving.key` uses it for every watermark.

python -m preprocessing.watermark bank --count=400 --out=bank
python -m training.train --config=repair --workdir=runs/repair --config.data.dir=tfrecords
"""

import ml_collections

from configs import default

_TILED = "watermark:canvas=bank/*.png,layout=tile,opacity=0.4..1,scale=0.5..1.5,rotate=-45..45,tint=0..0.2"
_SINGLE = "watermark:canvas=bank/*.png,layout=single,opacity=0.5..1,scale=0.6..2,rotate=-10..10"


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe with a family of watermarks in known places."""
    config = default.get_config()
    config.source = f"{_TILED}@0.7|{_SINGLE}@0.3"
    config.target = "clean"
    config.model.name = "repair"
    config.keyed.after = "jpeg:quality=75..97,chroma=any@0.8|clean@0.2"
    config.presence_weight = 0.0  # the watermark's place is known
    config.ema = 0.999
    config.steps = 200_000
    config.max_minutes = 50.0
    return config

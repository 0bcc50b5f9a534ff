"""Writes watermarked sample photographs for the demo app.

    python -m preprocessing.example_photos --out=runs/app

In: photographs that ship with scikit-image (extra `photos`). The watermarks are drawn here, so nobody else's is used.

Out: OUT/
    mark.png        the RGBA canvas laid over the examples; with it, `serving.key` can restore them
    examples/       JPEGs of quality 95: three under the canvas, one with a date stamp
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from PIL import Image

from common import command_line, entry_flags
from common.command_line import UserError
from preprocessing import sample_photos
from preprocessing.marks import draw

_FLAGS = flags.FlagValues()
_OUT = flags.DEFINE_string("out", "runs/app", "The folder to make.", flag_values=_FLAGS)

# Photograph -> the canvas's top left corner in it, x and y in pixels; None for a date stamp instead.
_PICTURES = {"chelsea": (-40, -90), "coffee": (-20, -200), "rocket": (-120, -260), "astronaut": None}


def write(folder: str) -> int:
    """Writes the examples.

    Args:
      folder: created, and appears only once it is complete.

    Returns:
      The number of examples.

    Raises:
      UserError: the folder exists, or the photographs are not installed.
    """
    if os.path.exists(folder):
        raise UserError(f"--out={folder}: is there already; name a new folder")
    parent = Path(folder).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    mark = draw.tile(draw.text_stamp("Cleanplate sample", size=26, opacity=0.5, outline=0), gap=70, rotate=25.0)
    stamp = draw.text_stamp("24. 8. 2003", size=26, color="#ff9020", outline=0, opacity=0.9)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        clean, whole = Path(temporary, "coco"), Path(temporary, "app")
        sample_photos.write_coco_folder(str(clean))
        (whole / "examples").mkdir(parents=True)
        draw.save_whole(mark, str(whole / "mark.png"))
        for name, corner in _PICTURES.items():
            picture = Image.open(clean / "images" / f"{name}.jpg").convert("RGBA")
            layer = Image.new("RGBA", picture.size)
            if corner:
                layer.paste(mark, corner)
            else:
                layer.paste(stamp, (picture.width - stamp.width - 24, picture.height - stamp.height - 20))
            marked = Image.alpha_composite(picture, layer).convert("RGB")
            marked.save(whole / "examples" / f"{name}.jpg", quality=95, subsampling=0)
        os.rename(whole, folder)
    return len(_PICTURES)


def main(argv: Sequence[str]) -> None:
    """Writes the examples and prints how many there are."""
    command_line.refuse_positional(argv)
    print(f"{_OUT.value}: {write(_OUT.value)} examples")


def run() -> None:
    """Entry point of the command."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()

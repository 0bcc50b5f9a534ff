"""The watermarks that restoration is measured on: five drawn here, or those in a folder.

| name | |
| --- | --- |
| `dense` | white words on two lines, with a dark outline, tiled closely |
| `light` | thin white words, tiled widely, faint |
| `red` | red words, tiled |
| `datestamp` | orange digits with a dark outline, tiled, nearly opaque |
| `stamp` | one caption |

They are drawn with Pillow's own font, so they are the same everywhere. `pretrained/generic` was trained on watermarks
from `preprocessing.watermark bank`, which writes random letters: none of these words is among them.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags
from PIL import Image

from common.command_line import UserError
from preprocessing.marks.draw import text_stamp, tile


def define_flag() -> flags.FlagHolder:
    """Defines `--canvases`."""
    return flags.DEFINE_string("canvases", None, "A folder of RGBA PNGs; default: five marks that are drawn here.")


def drawn() -> dict[str, Image.Image]:
    """Draws the five watermarks: RGBA, 1000 x 1000 each, except for the stamp."""
    return {
        "dense": tile(text_stamp("evergreen\npictures", 44, 0.75, outline=3), gap=36, rotate=30.0),
        "light": tile(text_stamp("SAMPLE 2026", 34, 0.4, outline=0), gap=70, rotate=20.0),
        "red": tile(text_stamp("PREVIEW ONLY", 40, 0.6, "#e03c30", outline=0), gap=50, rotate=-25.0),
        "datestamp": tile(text_stamp("2019.07.14 18:32", 34, 0.92, "#ff9a20", outline=2), gap=60),
        "stamp": text_stamp("evergreen studio", 50, 0.66),
    }


def paths(folder: str | None, scratch: Path) -> dict[str, Path]:
    """Returns the watermark files by name.

    Args:
      folder: the folder from `--canvases`; None to draw the five watermarks.
      scratch: a folder for the drawn watermarks.

    Raises:
      UserError: there are no PNGs in the folder.
    """
    if folder is None:
        scratch.mkdir(exist_ok=True)
        for name, mark in drawn().items():
            mark.save(scratch / f"{name}.png")
        return {name: scratch / f"{name}.png" for name in drawn()}
    found = {path.stem: path for path in sorted(Path(folder).glob("*.png"))}
    if not found:
        raise UserError(f"--canvases={folder}: no PNGs there; without it, marks are drawn")
    return found

r"""Draws watermark canvases, recovers them from watermarked images, and predicts how they will affect training.

    python -m preprocessing.watermark text "Sample\n© 2024" --size=48 --out=stamp.png
    python -m preprocessing.watermark tile stamp.png --size=1000 --rotate=25 --out=canvas.png
    python -m preprocessing.watermark extract --flats=dark.png,bright.png --levels=0,255 --out=mark.png
    python -m preprocessing.watermark estimate archive --out=mark.png
    python -m preprocessing.watermark info mark.png
    python -m preprocessing.watermark bank --count=300 --out=bank

| command | in | out |
| --- | --- | --- |
| `text` | a text; `\n` starts a new line | RGBA PNG the size of the text |
| `tile` | an RGBA stamp | square RGBA PNG filled with the stamp |
| `extract` | watermarked images, each of a single gray | RGBA PNG of their size: the watermark alone |
| `estimate` | a folder of images with the same watermark | RGBA PNG: the watermark alone; a confidence map beside it |
| `info` | a canvas | lines of text |
| `bank` | | a folder of random stamps, to train a model that removes watermarks it has never seen |

Files are overwritten only with `--overwrite`. `python -m preprocessing.watermark tile --help` lists the flags of
`tile`. docs/watermark.md explains how to get flat images watermarked, and how much other images reveal of the mark.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from PIL import Image

from common import canvas_file, command_line, entry_flags
from common.command_line import UserError
from preprocessing.marks import canvas_info, draw, random_stamps
from preprocessing.marks.from_flats import extract
from preprocessing.marks.from_flats import flats as flat_pictures
from preprocessing.marks.from_pictures import estimate

# Each command has its own flags: `--size` is the canvas's side for `tile`, the letter size for `text`.
_TILE = flags.FlagValues()
_TILE_SIZE = flags.DEFINE_integer("size", 1000, "Side of the canvas, pixels.", 1, 20_000, flag_values=_TILE)
_GAP = flags.DEFINE_integer("gap", 40, "Transparent pixels between neighbours.", 0, 20_000, flag_values=_TILE)
_STAGGER = flags.DEFINE_float("stagger", 0.5, "Shift of every other row, in stamps.", flag_values=_TILE)
_ROTATE = flags.DEFINE_float("rotate", 0.0, "Angle of the pattern, degrees counter-clockwise.", flag_values=_TILE)

_TEXT = flags.FlagValues()
_FONT = flags.DEFINE_string(
    "font", None, "A font file's path or name. Not given: one that has all the glyphs.", flag_values=_TEXT
)
_TEXT_SIZE = flags.DEFINE_integer("size", 36, "Of the letters, pixels to the em.", 4, 2000, flag_values=_TEXT)
_COLOR = flags.DEFINE_string("color", "white", "A name, or #rrggbb.", flag_values=_TEXT)
_OPACITY = flags.DEFINE_float("opacity", 0.6, "Alpha of the strokes.", 0.01, 1, flag_values=_TEXT)
_OUTLINE = flags.DEFINE_integer(
    "outline",
    None,
    "Width of the dark outline, pixels; 0 for none. Not given: fits the size.",
    0,
    200,
    flag_values=_TEXT,
)

_EXTRACT = flags.FlagValues()
_FLATS = flags.DEFINE_list("flats", [], "The marked flats, separated by commas.", flag_values=_EXTRACT)
_LEVELS = flags.DEFINE_list(
    "levels", None, "Grey of each flat before it was marked, 0..255. Not given: its commonest.", flag_values=_EXTRACT
)

_ESTIMATE = flags.FlagValues()

_INFO = flags.FlagValues()

_BANK = flags.FlagValues()
_COUNT = flags.DEFINE_integer("count", 300, "Stamps to draw.", 1, 100_000, flag_values=_BANK)
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is random about them.", 0, flag_values=_BANK)
_BANK_OUT = flags.DEFINE_string("out", "bank", "The folder to make.", flag_values=_BANK)

_COMMANDS = {
    "tile": _TILE,
    "text": _TEXT,
    "extract": _EXTRACT,
    "estimate": _ESTIMATE,
    "info": _INFO,
    "bank": _BANK,
}

_OUT, _OVERWRITE = {}, {}
for _name, _file in (
    ("tile", "canvas.png"),
    ("text", "stamp.png"),
    ("extract", "mark.png"),
    ("estimate", "mark.png"),
):
    _own = _COMMANDS[_name]
    _OUT[_name] = flags.DEFINE_string("out", _file, "Where to write it: a PNG.", flag_values=_own)
    _OVERWRITE[_name] = flags.DEFINE_bool("overwrite", False, "Replace a file that is there.", flag_values=_own)


def main(argv: Sequence[str]) -> None:
    """Runs the command named by the first argument."""
    command, arguments = (argv[1], argv[2:]) if len(argv) > 1 else (None, [])
    if command not in _COMMANDS:
        what = "no command" if command is None else f"no command {command!r}"
        raise UserError(
            f"{what}; say tile, text, extract, estimate, info or bank: python -m preprocessing.watermark COMMAND …"
        )
    if command == "info":
        print(canvas_info.describe(canvas_file.read(_only(command, "CANVAS.png", arguments))))
        return
    if command == "bank":
        if arguments:
            raise UserError(f"{arguments[0]!r}: bank takes flags alone")
        random_stamps.write(_BANK_OUT.value, _COUNT.value, _SEED.value)
        print(f"{_BANK_OUT.value}: {_COUNT.value} stamps")
        return
    out = _OUT[command].value
    _refuse_bad_output(out, _OVERWRITE[command].value)
    if command == "estimate":
        _estimate(_only(command, "IMAGES_DIR", arguments), out, _OVERWRITE[command].value)
        return
    if command == "tile":
        stamp = canvas_file.read(_only(command, "STAMP.png", arguments))
        made, note = draw.tile(stamp, _TILE_SIZE.value, _GAP.value, _STAGGER.value, _ROTATE.value), None
    elif command == "text":
        text = _only(command, '"…"', arguments).replace("\\n", "\n")
        made, note = _stamp(text), None
    else:
        if arguments:
            raise UserError(f"{arguments[0]!r}: extract takes its pictures by --flats=dark.png,bright.png")
        found, note = extract.extract(flat_pictures.read(_FLATS.value, _levels()))
        made = Image.fromarray(found)
    _save(made, out)
    print(f"{out}: {made.width} x {made.height}" + (f", {note}" if note else ""))


def _estimate(folder: str, out: str, overwrite: bool) -> None:
    beside = f"{os.path.splitext(out)[0]}.confidence.png"
    _refuse_bad_output(beside, overwrite)
    pictures = estimate.PictureFolder(folder)
    found = estimate.estimate(pictures, show_progress=True)
    made = Image.fromarray(found.canvas)
    # The canvas is written last, so it never exists without its confidence map.
    _save(Image.fromarray(np.rint(255 * found.confidence).astype(np.uint8)), beside)
    _save(made, out)
    print(f"{out}: {made.width} x {made.height}, {found.note}")
    print(f"{beside}: white where opacity is sure, black where it is not")
    for name, agreed, left_out in zip(pictures.names, found.agreed, found.left_out):
        if not agreed and not left_out:
            print(f"{os.path.join(folder, name)}: this mark was not found in it")
    for name in pictures.others:
        print(f"{os.path.join(folder, name)}: no picture, by its name")


def _save(made: Image.Image, out: str) -> None:
    try:
        draw.save_whole(made, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None


def _stamp(text: str) -> Image.Image:
    return draw.text_stamp(text, _TEXT_SIZE.value, _OPACITY.value, _COLOR.value, _OUTLINE.value, _FONT.value)


def _only(command: str, what: str, arguments: Sequence[str]) -> str:
    if len(arguments) != 1:
        raise UserError(f"{command} takes one argument: python -m preprocessing.watermark {command} {what}")
    return arguments[0]


def _levels() -> list[float] | None:
    if _LEVELS.value is None:
        return None
    try:
        return [float(level) for level in _LEVELS.value]
    except ValueError:
        raise UserError(f"--levels={','.join(_LEVELS.value)}: not numbers; give one grey a flat, as 0,255") from None


def _refuse_bad_output(path: str, overwrite: bool) -> None:
    if not path.lower().endswith(".png"):
        raise UserError(f"--out={path}: only a PNG keeps opacity as it is; name it .png")
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{path}: is there already; --overwrite replaces it, --out names another")


def run() -> None:
    """Entry point of the console script."""
    own = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if own is not None:
        entry_flags.adopt(own)
    # Without a command no flags are known; let them pass, so that the error is about the missing command.
    command_line.run(main, pass_unknown_flags=own is None)


if __name__ == "__main__":
    run()

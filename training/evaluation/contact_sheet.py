"""Lays out images side by side on one sheet, with captions above them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _LINE = 8, 20  # pixels


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[Sequence[str]]) -> Image.Image:
    """Makes a contact sheet.

    Args:
      rows: rows of images, uint8 `[H, W, 3]`, all of the same size, with the same number in each row.
      captions: caption of each image, one or more lines; a row whose captions are all empty takes no space.

    Returns:
      The sheet: RGB, on a white background.
    """
    height, width = rows[0][0].shape[:2]
    heads = [_LINE * max(words.count("\n") + 1 for words in row) if any(row) else 0 for row in captions]
    sheet = Image.new(
        "RGB",
        (
            _MARGIN + len(rows[0]) * (width + _MARGIN),
            _MARGIN + len(rows) * (height + _MARGIN) + sum(heads),
        ),
        "white",
    )
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), _MARGIN
    for pictures, words, head in zip(rows, captions, heads):
        for column, picture in enumerate(pictures):
            left = _MARGIN + column * (width + _MARGIN)
            if head:
                draw.multiline_text((left, top), words[column], "black", font)
            sheet.paste(Image.fromarray(picture), (left, top + head))
        top += head + height + _MARGIN
    return sheet

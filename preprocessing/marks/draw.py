"""Draws and saves watermark canvases: RGBA images, transparent where there is no mark.

    stamp = text_stamp("Sample", size=36, opacity=0.6)       # one mark, as large as its letters
    save_whole(tile(stamp, size=1000, rotate=25), "canvas.png")

`python -m preprocessing.watermark` does the same from the command line.
"""

from __future__ import annotations

import math
import os

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from common import fonts
from common.command_line import UserError


def text_stamp(
    text: str,
    size: int = 36,
    opacity: float = 0.6,
    color: str = "white",
    outline: int | None = None,
    font: str | None = None,
    outline_color: str = "#1e1e1e",
) -> Image.Image:
    """Renders a caption, a name or a date. The default, white with a dark outline, shows on any background.

    Args:
      text: one or more lines, separated by line breaks; they are centered.
      size: letter size, pixels per em.
      opacity: alpha of the strokes, 0..1.
      color: color of the letters, a name or `#rrggbb`.
      outline: width of the outline in pixels, 0 for none; None derives it from the size.
      font: path or name of a font file; None chooses a font that has all the glyphs, see `common.fonts`.
      outline_color: a name or `#rrggbb`.

    Returns:
      RGBA, as large as the text.

    Raises:
      UserError: no font has the glyphs, a color is invalid, or there is nothing to draw.
    """
    text = text.expandtabs(4)
    if not text.strip():
        raise UserError("the text is empty; give what the stamp shall say")
    face = fonts.load(fonts.find_font(text, font), size)
    outline = max(1, size // 18) if outline is None else outline

    # Drawn line by line, because Pillow spaces lines further apart when they have an outline.
    lines = text.split("\n")
    ascent, descent = face.getmetrics()
    widest = max(face.getlength(line) for line in lines)
    places = [
        (round((widest - face.getlength(line)) / 2), number * (ascent + descent)) for number, line in enumerate(lines)
    ]
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    boxes = [ruler.textbbox(place, line, face, stroke_width=outline) for place, line in zip(places, lines) if line]
    left, top = (math.floor(min(box[side] for box in boxes)) for side in (0, 1))
    right, bottom = (math.ceil(max(box[side] for box in boxes)) for side in (2, 3))

    def drawn(width: int) -> np.ndarray:
        mask = Image.new("L", (right - left, bottom - top))
        draw = ImageDraw.Draw(mask)
        for (x, y), line in zip(places, lines):
            draw.text((x - left, y - top), line, 255, face, stroke_width=width)
        return np.asarray(mask, np.float32)[..., None] / 255

    # Composite letters over their outline with premultiplied color. Drawn straight into RGBA, half-covered edge pixels
    # would mix in the black of the transparent background.
    letters, around = drawn(0), drawn(outline)
    around = np.maximum(around - letters, 0) if outline else np.zeros_like(letters)
    alpha = letters + around
    if not alpha.any():
        raise UserError(f"text {text!r}: nothing to see in it; give letters, digits or signs")
    mixed = letters * np.float32(_rgb(color)) + around * np.float32(_rgb(outline_color))
    rgb = np.divide(mixed, alpha, out=np.zeros_like(mixed), where=alpha > 0)
    return Image.fromarray(np.rint(np.concatenate([rgb, 255 * opacity * alpha], -1)).astype(np.uint8))


def tile(stamp: Image.Image, size: int = 1000, gap: int = 40, stagger: float = 0.5, rotate: float = 0.0) -> Image.Image:
    """Fills a square canvas with repetitions of a stamp, right up to the edges.

    Args:
      stamp: RGBA.
      size: side of the canvas in pixels.
      gap: transparent pixels between neighbors.
      stagger: shift of every other row, as a fraction of a stamp and its gap.
      rotate: angle of the whole pattern, degrees counterclockwise.

    Returns:
      RGBA `size` x `size`.
    """
    cell = np.pad(np.asarray(stamp), ((0, gap), (0, gap), (0, 0)))
    # Draw the pattern on a square so large that its corners stay outside the canvas after rotation.
    side = math.ceil(size * math.sqrt(2)) if rotate else size
    row, y = np.divmod(np.arange(side), cell.shape[0])
    shift = np.rint((row % 2) * stagger * cell.shape[1]).astype(int)
    x = (np.arange(side) - shift[:, None]) % cell.shape[1]
    field = Image.fromarray(cell[y[:, None], x])
    # Rotate with premultiplied alpha, to keep the black of the transparent background out of the mark's edges.
    turned = field.convert("RGBa").rotate(rotate, Image.Resampling.BILINEAR).convert("RGBA") if rotate else field
    corner = (side - size) // 2
    return turned.crop((corner, corner, corner + size, corner + size))


def save_whole(canvas: Image.Image, path: str) -> None:
    """Saves a PNG under a temporary name, then renames it, so that it appears complete."""
    temporary = f"{path}.tmp"
    canvas.save(temporary, "PNG")
    os.replace(temporary, path)


def _rgb(color: str) -> tuple[int, ...]:
    try:
        rgb = ImageColor.getrgb(color)
    except ValueError:
        raise UserError(f"color {color!r}: not a colour; give a name (orange) or #rrggbb") from None
    if len(rgb) != 3:
        raise UserError(f"color {color!r}: has an alpha of its own; give #rrggbb, and the opacity apart")
    return rgb

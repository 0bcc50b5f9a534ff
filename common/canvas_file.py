"""Reads watermark canvases: RGBA images whose alpha is the watermark's opacity."""

from __future__ import annotations

from PIL import Image

from common.command_line import UserError

_REMEDY = "save the mark as RGBA of 8 bits on a transparent ground"


def read(path: str) -> Image.Image:
    """Reads a canvas or a stamp.

    Args:
      path: PNG (or any format Pillow reads) with transparency: RGBA, gray with alpha, or palette. Channels of 16 bits
        are reduced to their upper 8.

    Returns:
      8-bit RGBA, alpha not premultiplied.

    Raises:
      UserError: the file is missing, not an image, has no transparency, is fully transparent, or has a kind of
        transparency that Pillow loses.
    """
    try:
        with Image.open(path) as image:
            transparent = image.info.get("transparency")
            if "A" not in image.getbands() and "a" not in image.getbands() and transparent is None:
                raise UserError(f"canvas {path}: has no alpha channel ({image.mode}); {_REMEDY}")
            # A 16-bit value declares one color transparent, but Pillow reduces the image to 8 bits.
            if image.mode.startswith("I") or (isinstance(transparent, tuple) and max(transparent) > 255):
                raise UserError(f"canvas {path}: has 16 bits a channel and one transparent colour; {_REMEDY}")
            canvas = image.convert("RGBA")
    except FileNotFoundError:
        raise UserError(f"canvas {path}: no such file; give the path of an RGBA PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"canvas {path}: cannot be read as a picture ({error}); give an RGBA PNG") from None
    if not canvas.getchannel("A").getextrema()[1]:
        raise UserError(f"canvas {path}: is fully transparent, there is no mark on it; {_REMEDY}")
    return canvas

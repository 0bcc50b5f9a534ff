"""Reading watermark canvases: RGBA pictures whose alpha says how much of the mark there is."""

from __future__ import annotations

from PIL import Image

from common.command_line import UserError

_REMEDY = "save the mark as RGBA of 8 bits on a transparent ground"


def read(path: str) -> Image.Image:
    """Reads a canvas or a stamp.

    Args:
      path: PNG (or any format Pillow reads) with transparency: RGBA, greyscale-alpha, palette. Of 16 bits a channel,
        the upper eight are taken.

    Returns:
      RGBA of 8 bits, alpha not premultiplied.

    Raises:
      UserError: missing, not a picture, without transparency, transparent everywhere, or of a kind whose transparency
        Pillow loses.
    """
    try:
        with Image.open(path) as image:
            transparent = image.info.get("transparency")
            if "A" not in image.getbands() and "a" not in image.getbands() and transparent is None:
                raise UserError(f"canvas {path}: has no alpha channel ({image.mode}); {_REMEDY}")
            # One colour is declared transparent, by a value of 16 bits, in a picture that Pillow brings to 8.
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

"""Reading watermark canvases: RGBA pictures whose alpha says how much of the mark there is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from configs.command_line import UserError


def read_canvas(path: str) -> np.ndarray:
    """Reads a canvas with its alpha.

    Args:
      path: PNG (or any format Pillow reads) with an alpha channel; greyscale-alpha and palette transparency count.

    Returns:
      uint8 `[H, W, 4]`, RGBA, alpha not premultiplied.

    Raises:
      UserError: missing, not a picture, without alpha, or transparent everywhere.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
                raise UserError(
                    f"canvas {path}: has no alpha channel ({image.mode}); save the mark as RGBA on a transparent ground"
                )
            canvas = np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        raise UserError(f"canvas {path}: no such file; give the path of an RGBA PNG") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"canvas {path}: cannot be read as a picture ({error}); give an RGBA PNG") from None
    if not canvas[..., 3].any():
        raise UserError(f"canvas {path}: is fully transparent, so nothing would be laid over any picture")
    return canvas

"""Decides whether a file's bytes are a picture that every reader of the dataset will decode.

Training decodes with `tf.io.decode_image`; what it cannot decode to RGB, or would decode to something that a
person does not see in the picture, is turned away here with one of REASONS. Checking is Pillow's work, not
TensorFlow's (see `schema`).
"""

import io
import struct
import warnings
from typing import NamedTuple, Optional

from PIL import Image, UnidentifiedImageError

DECODE = "decode"
HEADER = "header"

# Why a picture is left out, with the words that follow its name in rejected.jsonl and in messages.
REASONS = {
    "missing": "named by the annotations, not in the folder",
    "unreadable": "the file cannot be opened",
    "empty": "zero bytes",
    "not_an_image": "not a picture",
    "unsupported_format": "not JPEG, PNG, BMP or GIF",
    "truncated": "the file ends too early",
    "corrupt": "does not decode",
    "too_large": "more pixels than a decoder accepts",
    "cmyk": "ink colours, not RGB",
    "sixteen_bit": "more than 8 bits a channel",
    "alpha": "has transparency",
    "palette": "colours from a palette",
    "unsupported_mode": "neither RGB nor grey",
    "animated": "several frames",
    "size_mismatch": "not the size that the annotations give",
    "duplicate": "the same bytes as an earlier picture",
}

# Pillow's name of a format -> image/format. A phone's MPO is a JPEG with further pictures after it.
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "BMP": "bmp", "GIF": "gif"}

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF"}

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

# Pillow warns from 89 megapixels on and refuses above twice that. Refusing is a reject; warnings would be
# noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Rejected(Exception):
    """A picture that is left out.

    Attributes:
      reason: a key of REASONS.
      detail: what exactly was found, for the person who looks into it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail or REASONS[reason]


class Picture(NamedTuple):
    """What a good file holds: `format` as in image/format, the stored raster's size in pixels."""

    format: str
    width: int
    height: int


def check_picture(data: bytes, check: str = DECODE, size: Optional[tuple[int, int]] = None) -> Picture:
    """Checks a file's bytes.

    Args:
      data: the file.
      check: DECODE decodes all of the file; HEADER reads the header and looks for the end marker only.
      size: (width, height) that the annotations give, None where they give none.

    Returns:
      Format and size.

    Raises:
      Rejected: with the reason.
    """
    if not data:
        raise Rejected("empty")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise Rejected("too_large", str(error)) from None
    except Exception as error:  # UnidentifiedImageError, and nearly anything else on a damaged header
        raise _bad_header(data, error) from None

    if image.format not in _FORMATS:
        raise Rejected("unsupported_format", f"{image.format}, not JPEG, PNG, BMP or GIF")
    _check_channels(image, data)
    if size is not None and image.size != size:
        found, given = ("{}x{}".format(*pair) for pair in (image.size, size))
        raise Rejected("size_mismatch", f"the file is {found}, the annotations say {given}")
    if _ends_early(image.format, data):
        raise Rejected("truncated", f"{len(data)} bytes and no end marker")
    picture = Picture(_FORMATS[image.format], *image.size)
    if check == DECODE:
        _decode(image)
    return picture


def _bad_header(data: bytes, error: Exception) -> Rejected:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            reason = "truncated" if _ends_early(name, data) else "corrupt"
            return Rejected(reason, f"begins like a {name} file of {len(data)} bytes, its header cannot be read")
    if isinstance(error, UnidentifiedImageError):
        return Rejected("not_an_image")
    return Rejected("corrupt", f"header: {error}")


def _check_channels(image: Image.Image, data: bytes) -> None:
    """Lets 8-bit RGB and grey through, and single-frame GIFs, whose palette every decoder resolves to RGB."""
    mode = image.mode
    if mode == "CMYK":
        raise Rejected("cmyk", "mode CMYK")
    # Pillow opens 16-bit RGB as "RGB"; bit depth is byte 24 of a PNG, in IHDR.
    if mode.startswith("I") or mode == "F" or (image.format == "PNG" and data[24] == 16):
        raise Rejected("sixteen_bit", f"{image.format} with more than 8 bits a channel")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise Rejected("animated", f"{image.n_frames} frames")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        raise Rejected("alpha", f"mode {mode} with transparency")
    if image.format == "GIF":
        return
    if mode == "P":
        raise Rejected("palette", "mode P")
    if mode not in ("RGB", "L"):
        raise Rejected("unsupported_mode", f"mode {mode}")
    if image.format == "BMP":
        # TensorFlow reads uncompressed 8- and 24-bit BMP only.
        bits, compression = struct.unpack_from("<HI", data, 28)
        if bits != (24 if mode == "RGB" else 8) or compression:
            raise Rejected("unsupported_format", f"BMP of {bits} bits, compression {compression}")


def _ends_early(file_format: str, data: bytes) -> bool:
    if file_format == "PNG":
        return b"IEND" not in data[-64:] and b"IEND" not in data
    if file_format not in ("JPEG", "MPO"):
        return False
    # Nearly always the end marker is the last two bytes; searching is for files with something appended. Within a
    # scan FF is stuffed, so that an end marker after the last scan's start is a real one.
    if data.endswith(_JPEG_END):
        return False
    end = data.rfind(_JPEG_END)
    return end < 0 or end < data.rfind(_JPEG_SCAN)


def _decode(image: Image.Image) -> None:
    # Every coefficient of a JPEG is decoded, which is where damage shows, but the pixels are reconstructed at an
    # eighth of the size: a quarter of the time. tests/preprocessing/test_rejects.py holds it against a full one.
    image.draft(image.mode, (1, 1))
    try:
        image.load()
    except Exception as error:  # OSError, SyntaxError, ValueError, zlib.error, struct.error, by format
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise Rejected(reason, str(error)) from None

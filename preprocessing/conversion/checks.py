"""Checks whether a file's bytes are an image that every reader of the dataset can decode.

Training decodes with `tf.io.decode_image`. Images that it cannot decode to RGB, or would decode differently from what a
viewer shows, are rejected with one of REASONS. The check uses Pillow, since importing TensorFlow is costly (see
`schema`).
"""

import io
import struct
import warnings
from typing import NamedTuple, Optional

from PIL import Image, UnidentifiedImageError

DECODE = "decode"
HEADER = "header"

# Why an image is rejected -> default detail, for rejected.jsonl.
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

# Pillow's format name -> image/format. MPO, from phones, is a JPEG followed by further images.
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "BMP": "bmp", "GIF": "gif"}

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF"}

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

# Pillow warns above 89 megapixels and raises an error above twice that. The error becomes a rejection; the warnings
# would be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Rejected(Exception):
    """Raised for an image that must be left out.

    Attributes:
      reason: a key of REASONS.
      detail: what exactly was found, for a human reader.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail or REASONS[reason]


class Picture(NamedTuple):
    """The content of a valid file: `format` as in image/format, and the stored raster's size in pixels."""

    format: str
    width: int
    height: int


def check_picture(data: bytes, check: str = DECODE, size: Optional[tuple[int, int]] = None) -> Picture:
    """Checks a file's bytes.

    Args:
      data: the file's bytes.
      check: DECODE decodes the whole file; HEADER only reads the header and looks for the end marker.
      size: (width, height) according to the annotations, None if they give none.

    Returns:
      Format and size.

    Raises:
      Rejected: the image must be left out.
    """
    if not data:
        raise Rejected("empty")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise Rejected("too_large", str(error)) from None
    except Exception as error:  # UnidentifiedImageError; a damaged header may raise nearly anything else
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
    """Accepts 8-bit RGB and gray, and single-frame GIFs, whose palette every decoder resolves to RGB."""
    mode = image.mode
    if mode == "CMYK":
        raise Rejected("cmyk", "mode CMYK")
    # Pillow opens 16-bit RGB as "RGB"; byte 24 of a PNG, in IHDR, is the bit depth.
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
        # TensorFlow reads only uncompressed 8-bit and 24-bit BMP.
        bits, compression = struct.unpack_from("<HI", data, 28)
        if bits != (24 if mode == "RGB" else 8) or compression:
            raise Rejected("unsupported_format", f"BMP of {bits} bits, compression {compression}")


def _ends_early(file_format: str, data: bytes) -> bool:
    if file_format == "PNG":
        return b"IEND" not in data[-64:] and b"IEND" not in data
    if file_format not in ("JPEG", "MPO"):
        return False
    # The end marker is nearly always the last two bytes; the search is for files with trailing data. Within a scan,
    # FF bytes are stuffed, so an end marker after the start of the last scan is a real one.
    if data.endswith(_JPEG_END):
        return False
    end = data.rfind(_JPEG_END)
    return end < 0 or end < data.rfind(_JPEG_SCAN)


def _decode(image: Image.Image) -> None:
    # For a JPEG, every coefficient is decoded, which is where damage shows, but pixels are reconstructed at an eighth
    # of the size, in a quarter of the time. tests/preprocessing/test_rejects.py compares this with a full decode.
    image.draft(image.mode, (1, 1))
    try:
        image.load()
    except Exception as error:  # OSError, SyntaxError, ValueError, zlib.error or struct.error, depending on the format
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise Rejected(reason, str(error)) from None

"""Converts a user's photo into a server request, and the server's answer into the output file.

| file | sent | written |
| --- | --- | --- |
| JPEG (also MPO), RGB or gray | unchanged | JPEG, quality 95, 4:4:4 |
| PNG | unchanged | PNG with 8 bits per channel, alpha kept, palette converted to RGB |
| BMP, GIF (one frame), TIFF (one page), WebP | as PNG, lossless | the same format; WebP at quality 95 |
| HEIC, with the extra `heic` | as PNG, 8 bits per channel | HEIC, quality 95, 4:4:4 |

If a photo's EXIF orientation is not upright, the photo is rotated first, because the network is trained on overlays as
people see them. The result is upright, with its orientation set to 1. Metadata is kept (serving/restoring/metadata.py).
Files that would silently lose something are rejected: CMYK, more than 8 bits in a TIFF, animations, several pages.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import warnings

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

import common.images  # noqa: F401  (teaches Pillow HEIC, where it is installed)
from serving.restoring import metadata

_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "HEIF")
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftypheis")
_SENT_AS_IS = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I")}
_DEPTH_LOST = ("CMYK", "I;16", "I;16B", "I", "F")
_QUALITY = 95
# TIFF tags that describe the photo; the others describe how its pixels are stored.
_TIFF_TAGS = (
    "ImageDescription Make Model Software DateTime Artist Copyright XResolution YResolution ResolutionUnit "
    "XMLPacket IPTCNAA ImageResources Rating"
).split()


class UnreadablePhoto(Exception):
    """Raised for a file that cannot be restored; the message says why and what to do, in one line."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo as read from its file.

    Attributes:
      request: the bytes to send to the server: the file's own, or a PNG of its pixels.
      original: the file's bytes.
      image_format: Pillow's name for the output format.
      size: (width, height) of the image in `request`.
      grey: whether the photo is grayscale; the result will be too.
      turned: whether the pixels in `request` were rotated upright from those in the file.
    """

    request: bytes
    original: bytes
    image_format: str
    size: tuple[int, int]
    grey: bool
    turned: bool


def read(path: str | os.PathLike) -> Photo:
    """Reads a photo and prepares its request.

    Args:
      path: the file; its format is recognized by content, not by name.

    Raises:
      UnreadablePhoto: the file cannot be read, is not an image, is damaged, or would lose something.
    """
    try:
        original = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UnreadablePhoto(error.strerror or str(error)) from error
    return parse(original)


def parse(original: bytes) -> Photo:
    """Prepares the request for a photo that is already in memory.

    Args:
      original: the file's bytes.

    Raises:
      UnreadablePhoto: not an image, damaged, or a kind of file that would lose something.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the server has its own limit
            image = Image.open(io.BytesIO(original))
            return _prepare(image, original)
    except UnidentifiedImageError as error:
        if original[4:12] in _HEIC_BRANDS and "HEIF" not in Image.OPEN:
            raise UnreadablePhoto("a HEIC; pip install 'cleanplate[heic]' to restore these") from error
        raise UnreadablePhoto("not a JPEG, PNG, BMP, GIF, TIFF or WebP, or damaged") from error
    except Image.DecompressionBombError as error:
        raise UnreadablePhoto("more pixels than any server takes; cut it into parts") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise UnreadablePhoto(getattr(error, "strerror", None) or str(error)) from error


def _prepare(image: Image.Image, original: bytes) -> Photo:
    image_format = "JPEG" if image.format == "MPO" else image.format
    if image.format not in _FORMATS:
        raise UnreadablePhoto(f"a {image.format}; convert it to JPEG or PNG first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO's other images are previews and depth maps
        raise UnreadablePhoto(f"{frames} frames or pages; extract them and restore them one by one")
    turned = _orientation(image) in range(2, 9)
    grey = image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
    # TensorFlow supports palette transparency, but not the single transparent color that other PNGs may declare.
    keyed = image.mode != "P" and "transparency" in image.info
    if image.mode in _SENT_AS_IS.get(image_format, ()) and not turned and not keyed:
        return Photo(original, original, image_format, image.size, grey, turned)
    if image.mode in _DEPTH_LOST:
        raise UnreadablePhoto(f"{image.mode} pixels; convert it to RGB with 8 bits a channel first")
    upright = ImageOps.exif_transpose(image)
    pixels = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=1)
    return Photo(buffer.getvalue(), original, image_format, pixels.size, grey, turned)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation. `image.getexif()` would fall back to XMP's, which image viewers ignore."""
    if image.format == "TIFF":
        return image.tag_v2.get(ExifTags.Base.Orientation, 1)
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif.get(ExifTags.Base.Orientation, 1)


def write(photo: Photo, restored_png: bytes) -> bytes:
    """Encodes the restored file: the photo's format and metadata with the restored pixels.

    Args:
      photo: the photo as read.
      restored_png: the server's answer to `photo.request`.

    Returns:
      The file's bytes.

    Raises:
      ValueError: the answer has a different size than the photo.
    """
    restored = Image.open(io.BytesIO(restored_png))
    if restored.size != photo.size:
        raise ValueError(f"sent {photo.size} pixels, {restored.size} came back")
    if photo.grey:
        restored = restored.convert("LA" if "A" in restored.mode else "L")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        original = Image.open(io.BytesIO(photo.original))
    buffer = io.BytesIO()
    if photo.image_format == "JPEG":
        resolution = {"dpi": original.info["dpi"]} if "dpi" in original.info else {}
        restored.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:4:4", **resolution)
        return metadata.carry_jpeg(photo.original, buffer.getvalue(), photo.turned)
    if photo.image_format == "PNG":
        restored.save(buffer, "PNG")
        return metadata.carry_png(photo.original, buffer.getvalue(), photo.turned)
    if photo.image_format == "WEBP":
        exif, xmp = original.info.get("exif", b""), original.info.get("xmp", b"")
        prefix = b"Exif\0\0"
        if photo.turned:
            exif = metadata.upright_exif(exif[len(prefix) :] if exif.startswith(prefix) else exif)
            xmp = metadata.upright_xmp(xmp)
        profile = original.info.get("icc_profile", b"")
        restored.save(buffer, "WEBP", quality=_QUALITY, exif=exif, xmp=xmp, icc_profile=profile)
    elif photo.image_format == "HEIF":  # the plug-in already rotated the pixels and reset the orientation
        kept = {key: original.info[key] for key in ("exif", "xmp", "icc_profile") if original.info.get(key)}
        restored.save(buffer, "HEIF", quality=_QUALITY, chroma=444, **kept)
    elif photo.image_format == "TIFF":
        profile = original.info.get("icc_profile")
        restored.save(buffer, "TIFF", exif=_tiff_tags(original).tobytes(), icc_profile=profile)  # EXIF rules out LZW
    elif photo.image_format == "GIF":
        restored.save(buffer, "GIF", comment=original.info.get("comment", b""))
    else:
        restored.save(buffer, photo.image_format)
    return buffer.getvalue()


def _tiff_tags(original: Image.Image) -> Image.Exif:
    source, kept = original.getexif(), Image.Exif()
    for name in _TIFF_TAGS:
        tag = getattr(ExifTags.Base, name, None)
        if tag in source:
            kept[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if content := source.get_ifd(directory):
            kept.get_ifd(directory).update(content)
    return kept

"""Copies a photo's metadata into its restored file, byte for byte: EXIF, ICC, XMP, IPTC, comments.

JPEG segments and PNG chunks are copied verbatim, because no library that parses and rewrites them preserves all of them
(maker notes, IPTC, extended XMP). Only one value changes: the orientation becomes 1 if the pixels were rotated upright.
Metadata that describes how the old pixels were encoded (JFIF, Adobe, MPF; PLTE, tRNS, sBIT) is not copied.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_ORIENTATION_TAG = 0x0112
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')
_JPEG_SOS, _JPEG_COMMENT = 0xDA, 0xFE
_JPEG_KEPT = {*range(0xE1, 0xEE), 0xEF, _JPEG_COMMENT}  # APP1 to APP15 without Adobe's APP14
_PNG_KEPT = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"}
_PNG_HEADER_END = 33  # bytes: signature and IHDR


def upright_exif(tiff: bytes) -> bytes:
    """Sets the orientation in an EXIF block (starting with `II` or `MM`) to 1; returns anything else unchanged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return tiff
    changed = bytearray(tiff)
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", tiff, entry)[0] == _ORIENTATION_TAG:
                struct.pack_into(f"{order}H", changed, entry + 8, 1)
    except struct.error:  # keep a damaged block as it is
        return tiff
    return bytes(changed)


def upright_xmp(packet: bytes) -> bytes:
    """Sets the orientation in an XMP packet to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the marker and the whole segment, for all segments before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == _JPEG_SOS:
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position:end]
        position = end


def carry_jpeg(original: bytes, restored: bytes, upright: bool) -> bytes:
    """Copies the metadata of one JPEG into another.

    Args:
      original: the photo's file.
      restored: a JPEG without metadata, as written by Pillow.
      upright: whether the restored pixels were rotated upright, so that the orientation becomes 1.

    Returns:
      `restored` with the metadata of `original`.
    """
    kept = b""
    for marker, segment in _jpeg_segments(original):
        payload = segment[4:]
        if marker not in _JPEG_KEPT or payload.startswith(b"MPF\0"):
            continue
        if upright and payload.startswith(b"Exif\0\0"):
            segment = segment[:10] + upright_exif(segment[10:])
        elif upright:
            segment = upright_xmp(segment)
        kept += segment
    first = next(_jpeg_segments(restored), None)
    # The JFIF standard requires the JFIF segment to come first.
    start = 2 + len(first[1]) if first and first[0] == 0xE0 else 2
    return restored[:start] + kept + restored[start:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the type and content of each chunk."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def carry_png(original: bytes, restored: bytes, upright: bool) -> bytes:
    """Copies the metadata of one PNG into another.

    Args:
      original: the photo's file.
      restored: a PNG without metadata, as written by Pillow.
      upright: whether the restored pixels were rotated upright, so that the orientation becomes 1.

    Returns:
      `restored` with the metadata of `original`.
    """
    kept = b""
    for kind, content in _png_chunks(original):
        if kind not in _PNG_KEPT:
            continue
        if upright:
            content = upright_exif(content) if kind == b"eXIf" else upright_xmp(content)
        checksum = zlib.crc32(kind + content)
        kept += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return restored[:_PNG_HEADER_END] + kept + restored[_PNG_HEADER_END:]

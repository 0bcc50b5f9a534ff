"""Decodes and encodes images inside the graph; rejects invalid ones before they cost memory.

JPEG, PNG, BMP and GIF (first frame) are recognized by their first bytes. Their dimensions are read from the header and
checked against `max_pixels` before anything is decoded. A rejected image raises an InvalidArgumentError (gRPC status
INVALID_ARGUMENT) that names the element: `image_bytes[2]: not a JPEG, PNG, BMP or GIF`.

    gray, palette, CMYK JPEG    converted to RGB
    gray + alpha, RGBA PNG      the color as RGB, and the alpha separately
    16 bits per channel (PNG)   the upper 8 bits
    BMP                         24 or 32 bits (the fourth byte is not alpha), 8 bits with a gray palette
    EXIF orientation            ignored: the pixels come out as they are stored
"""

from __future__ import annotations

import tensorflow as tf

from serving.savedmodel.gif_frame import first_frame

_JPEG, _PNG, _BMP, _GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8"
# TensorFlow reads palette indices as gray levels, which is correct only for this palette.
_GREY_PALETTE = bytes(value for level in range(256) for value in (level, level, level, 0))
# zlib level, 0 to 9. Compared with the default, level 1 encodes a photo in a sixth of the time into a fifth more bytes;
# the client decodes the answer right away.
_PNG_COMPRESSION = 1


def _starts_with(data: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.strings.substr(data, 0, len(magic)) == magic


def _integers(data: tf.Tensor, position: int, dtype: tf.DType, count: int, big_endian: bool) -> tf.Tensor:
    """Reads `count` integers from byte `position`; the file must reach that far."""
    raw = tf.strings.substr(data, position, count * dtype.size)
    return tf.cast(tf.io.decode_raw(raw, dtype, little_endian=not big_endian), tf.int64)


def _header_size(data: tf.Tensor) -> tf.Tensor:
    """Reads (width, height) from the header: int64 `[2]`, zeros if the file is too short."""
    long_enough = tf.strings.length(data) >= 30

    def jpeg() -> tf.Tensor:
        return tf.cast(tf.image.extract_jpeg_shape(data), tf.int64)[1::-1]

    return tf.case(
        [
            (_starts_with(data, _JPEG), jpeg),
            (~long_enough, lambda: tf.zeros([2], tf.int64)),
            (_starts_with(data, _PNG), lambda: _integers(data, 16, tf.int32, 2, big_endian=True)),
            (_starts_with(data, _GIF), lambda: _integers(data, 6, tf.uint16, 2, big_endian=False)),
        ],
        # A BMP stored top row first has a negative height.
        default=lambda: tf.abs(_integers(data, 18, tf.int32, 2, big_endian=False)),
    )


def _readable_bmp(data: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow decodes this BMP to the right colors; the file must have at least 30 bytes."""
    header, bits = _integers(data, 14, tf.int32, 1, False)[0], _integers(data, 28, tf.int16, 1, False)[0]
    palette_at = tf.cast(tf.minimum(14 + header, tf.cast(tf.strings.length(data), tf.int64)), tf.int32)
    grey = tf.strings.substr(data, tf.maximum(palette_at, 0), len(_GREY_PALETTE)) == _GREY_PALETTE
    return (bits == 24) | (bits == 32) | ((bits == 8) & grey)


def _require(condition: tf.Tensor, name: tf.Tensor, *complaint: str | tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(condition, [tf.strings.join([name, ": ", *complaint])])


def decode(data: tf.Tensor, index: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one image.

    Args:
      data: scalar string, the file's bytes.
      index: scalar integer, the element's index in its batch, for error messages.
      max_pixels: larger images are rejected based on their header.

    Returns:
      The color, uint8 `[H, W, 3]`, and the alpha, uint8 `[H, W, 1]`, or `[H, W, 0]` if there is none.

    Raises:
      tf.errors.InvalidArgumentError: when the graph runs and `data` is not an image within these limits.
    """
    name = tf.strings.join(["image_bytes[", tf.strings.as_string(index), "]"])
    is_bmp = _starts_with(data, _BMP)
    known = is_bmp | tf.reduce_any([_starts_with(data, magic) for magic in (_JPEG, _PNG, _GIF)])
    length = tf.strings.as_string(tf.strings.length(data))
    complaint = tf.where(
        length == "0", "empty; send the bytes of a JPEG, PNG, BMP or GIF", "not a JPEG, PNG, BMP or GIF"
    )
    # Decoding has no side effects, so nothing orders it after the checks; control dependencies make each step wait.
    with tf.control_dependencies([_require(known, name, complaint)]):
        data = tf.identity(data)
    size = _header_size(data)
    width_by_height = tf.strings.reduce_join(tf.strings.as_string(size), separator="x")
    sound = _require(tf.reduce_all(size > 0), name, "cut off, or a header without dimensions")
    with tf.control_dependencies([sound]):
        limit = f" pixels, and this model takes at most {max_pixels}; reduce the picture or cut it"
        small = _require(tf.reduce_prod(size) <= max_pixels, name, width_by_height, limit)
    with tf.control_dependencies([small]):
        data = tf.identity(data)
    # A GIF frame has its own size, which may differ from the header's.
    is_gif = _starts_with(data, _GIF)
    data, frame_size = tf.cond(is_gif, lambda: first_frame(data), lambda: (data, tf.ones([2], tf.int32)))
    has_frame = _require(tf.reduce_all(frame_size > 0), name, "cut off, or a GIF without a frame")
    frame_name = tf.strings.reduce_join(tf.strings.as_string(frame_size), separator="x")
    fits = tf.reduce_prod(tf.cast(frame_size, tf.int64)) <= max_pixels
    with tf.control_dependencies([has_frame, _require(fits, name, "a frame of ", frame_name, limit)]):
        data = tf.identity(data)
    readable = tf.cond(is_bmp, lambda: _readable_bmp(data), lambda: True)
    with tf.control_dependencies([_require(readable, name, "a BMP with a palette; convert it to PNG")]):
        data = tf.identity(data)

    pixels = tf.cond(
        _starts_with(data, _JPEG),
        # The default transform is faster but off by one level in places, which would change uncovered pixels.
        lambda: tf.io.decode_jpeg(data, channels=0, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=0, expand_animations=False),
    )
    pixels.set_shape([None, None, None])
    channels = tf.shape(pixels)[2]  # 1: gray, 2: gray and alpha, 3: RGB, 4: RGB and alpha
    colour = tf.cond(
        channels < 3,
        lambda: tf.repeat(pixels[:, :, :1], 3, axis=2),
        lambda: pixels[:, :, :3],
    )
    has_alpha = (channels % 2 == 0) & ~is_bmp
    alpha = tf.cond(has_alpha, lambda: pixels[:, :, -1:], lambda: pixels[:, :, :0])
    return tf.ensure_shape(colour, [None, None, 3]), alpha


def encode_png(colour: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Encodes color, uint8 `[H, W, 3]`, and alpha, uint8 `[H, W, 0 or 1]`, as an RGB or RGBA PNG, a scalar string."""
    return tf.io.encode_png(tf.concat([colour, alpha], axis=2), compression=_PNG_COMPRESSION)

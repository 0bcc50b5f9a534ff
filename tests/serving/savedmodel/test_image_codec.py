"""serving_default decodes what people have, compared with Pillow, and refuses the rest by element and reason."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.savedmodel import gif_frame
from tests.serving.conftest import decoded, encoded


def restore_bytes(model, *files):
    return list(
        model.signatures["serving_default"](image_bytes=tf.constant(files, tf.string))["restored_bytes"].numpy()
    )


@pytest.fixture
def crop(photo):
    return photo[30:121, 150:283]


def test_sizes_and_formats_may_differ_within_a_request(identity_model, photo):
    pictures = [photo[:1, :1], photo[:1, :7], photo[:17, :1], photo[:3, :5], photo[:255, :257]]
    formats = ["PNG", "BMP", "PNG", "BMP", "PNG"]
    answers = restore_bytes(identity_model, *map(encoded, pictures, formats))
    assert len(answers) == len(pictures)
    for picture, answer in zip(pictures, answers):
        assert answer.startswith(b"\x89PNG")
        np.testing.assert_array_equal(decoded(answer), picture)


def test_a_jpeg_comes_back_as_pillow_decodes_it(identity_model, crop):
    for options in ({"quality": 90}, {"quality": 90, "progressive": True}, {"quality": 95, "subsampling": 0}):
        data = encoded(crop, "JPEG", **options)
        [answer] = restore_bytes(identity_model, data)
        assert np.abs(decoded(answer).astype(int) - decoded(data)).max() <= 1


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "JPEG"])
def test_grey_becomes_rgb(identity_model, crop, image_format):
    data = encoded(crop, image_format, mode="L")
    [answer] = restore_bytes(identity_model, data)
    assert np.abs(decoded(answer).astype(int) - decoded(data, "RGB")).max() <= 1
    assert decoded(answer).shape == crop.shape


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_one_bit_png_become_rgb(identity_model, crop, mode):
    data = encoded(crop, "PNG", mode=mode)
    [answer] = restore_bytes(identity_model, data)
    np.testing.assert_array_equal(decoded(answer), decoded(data, "RGB"))


def test_alpha_passes_through(identity_model, small_model, crop):
    alpha = np.linspace(0, 255, crop.size // 3).astype(np.uint8).reshape(crop.shape[:2])
    rgba = np.dstack([crop, alpha])
    [answer] = restore_bytes(identity_model, encoded(rgba))
    np.testing.assert_array_equal(decoded(answer), rgba)
    [with_alpha], [without] = restore_bytes(small_model, encoded(rgba)), restore_bytes(small_model, encoded(crop))
    np.testing.assert_array_equal(decoded(with_alpha), np.dstack([decoded(without), alpha]))
    grey_alpha = encoded(rgba, mode="LA")
    np.testing.assert_array_equal(decoded(restore_bytes(identity_model, grey_alpha)[0]), decoded(grey_alpha, "RGBA"))


def test_16_bit_png_keeps_its_upper_8_bits(identity_model):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16) + np.uint16(100)
    [answer] = restore_bytes(identity_model, encoded(values))
    np.testing.assert_array_equal(decoded(answer)[..., 0], values >> 8)


def test_a_gif_gives_its_first_frame(identity_model, crop):
    first, second = Image.fromarray(crop).convert("P"), Image.fromarray(255 - crop).convert("P")
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    [answer] = restore_bytes(identity_model, buffer.getvalue())
    np.testing.assert_array_equal(decoded(answer), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"interlace": 0, "comment": b"c" * 700, "loop": 0, "duration": 40}])
def test_what_follows_a_gif_s_first_frame_is_never_decoded(crop, options):
    frames = [Image.fromarray(np.roll(crop, shift, axis=1)).convert("P", palette=1) for shift in (0, 9, 40)]
    alone, animated = io.BytesIO(), io.BytesIO()
    frames[0].save(alone, "GIF", **options)
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:], **options)
    cut, size = gif_frame.first_frame(tf.constant(animated.getvalue()))
    assert Image.open(animated).n_frames == 3
    first = Image.open(io.BytesIO(cut.numpy()))
    assert first.n_frames == 1 and size.numpy().tolist() == list(first.size)
    np.testing.assert_array_equal(first.convert("RGB"), frames[0].convert("RGB"))
    whole, _ = gif_frame.first_frame(tf.constant(alone.getvalue()))
    assert whole.numpy() == alone.getvalue()


def huge_gif_frame():
    """A GIF of 4 x 4 pixels with a frame that claims to have 60000 x 50000."""
    small = bytearray(encoded(np.zeros((4, 4, 3), np.uint8), "GIF", "P"))
    at = small.index(b"\x2c\0\0\0\0\x04")
    small[at + 5 : at + 9] = struct.pack("<HH", 60_000, 50_000)
    return bytes(small)


def huge_png(width, height):
    """A PNG's header that announces this size, over the data of a small picture."""
    small = bytearray(encoded(np.zeros((4, 4, 3), np.uint8)))
    small[16:24] = struct.pack(">II", width, height)
    return bytes(small)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "empty"),
        (b"this is text", "not a JPEG, PNG, BMP or GIF"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "not a JPEG, PNG, BMP or GIF"),
        (b"\x89PNG\r\n\x1a\n", "cut off"),
        (b"GIF89a", "cut off"),
        (b"BM", "cut off"),
        (huge_png(30_000, 30_000), "30000x30000 pixels, and this model takes at most 1000000"),
        (huge_png(2**31 - 1, 2**31 - 1), "2147483647x2147483647 pixels"),
        (huge_png(0, 5), "without dimensions"),
        (huge_gif_frame(), "a frame of 60000x50000 pixels, and this model takes at most 1000000"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "GIF", "P")[:13] + b";" * 20, "without a frame"),
    ],
)
def test_a_bad_element_is_named_with_the_reason(identity_model, crop, bad, reason):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        restore_bytes(identity_model, encoded(crop), encoded(crop), bad)
    assert "image_bytes[2]: " in error.value.message
    assert reason in error.value.message


def test_a_coloured_palette_in_a_bmp_is_refused_rather_than_decoded_wrongly(identity_model, crop):
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP with a palette"):
        restore_bytes(identity_model, encoded(crop, "BMP", mode="P"))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_truncated_file_is_an_invalid_argument(identity_model, crop, image_format):
    data = encoded(crop, image_format)
    for length in (4, 25, 60, len(data) // 2):
        with pytest.raises(tf.errors.InvalidArgumentError):
            restore_bytes(identity_model, data[:length])


def test_an_empty_request_has_an_empty_answer(identity_model):
    assert restore_bytes(identity_model) == []

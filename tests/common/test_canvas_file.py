"""Canvases as drawing programs save them: every kind of PNG with transparency, or a clear error."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common import canvas_file
from common.command_line import UserError


@pytest.fixture
def pixels():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (6, 7, 4), np.uint8)
    values[0, 0, 3] = 255
    return values


def _png(path, samples, color_type, *chunks):
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return str(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colour_and_alpha_are_kept(tmp_path, pixels, mode):
    Image.fromarray(pixels).convert(mode).save(tmp_path / "mark.png")
    canvas = np.asarray(canvas_file.read(str(tmp_path / "mark.png")))
    np.testing.assert_array_equal(canvas[..., 3], pixels[..., 3])
    if mode == "RGBA":
        np.testing.assert_array_equal(canvas, pixels)
    else:
        assert (canvas[..., 0] == canvas[..., 2]).all()


def test_a_palettes_transparency_is_kept(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 200, 10, 20, 5, 6, 7])
    image.putpixel((2, 1), 2)
    image.save(tmp_path / "mark.png", transparency=bytes([0, 128, 255]))
    canvas = canvas_file.read(str(tmp_path / "mark.png"))
    assert canvas.getpixel((0, 0)) == (200, 10, 20, 128)
    assert canvas.getpixel((2, 1)) == (5, 6, 7, 255)


def test_one_pixel_is_a_canvas(tmp_path):
    Image.new("RGBA", (1, 1), (9, 8, 7, 200)).save(tmp_path / "dot.png")
    assert canvas_file.read(str(tmp_path / "dot.png")).getpixel((0, 0)) == (9, 8, 7, 200)


@pytest.mark.parametrize(("color_type", "channels"), [(6, 4), (4, 2)])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, color_type, channels):
    samples = np.random.default_rng(0).integers(0, 2**16, (5, 6, channels))
    canvas = np.asarray(canvas_file.read(_png(tmp_path / "deep.png", samples, color_type)))
    kept = samples >> 8
    expected = kept if channels == 4 else np.concatenate([np.repeat(kept[..., :1], 3, -1), kept[..., 1:]], -1)
    assert np.abs(canvas.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (0, 1)])
def test_one_transparent_colour_of_sixteen_bits_is_refused(tmp_path, color_type, channels):
    samples = np.full((5, 6, channels), 0xFFFF)
    path = _png(tmp_path / "keyed.png", samples, color_type, (b"tRNS", b"\xff\xff" * channels))
    with pytest.raises(UserError, match="keyed.png: has 16 bits a channel.*RGBA of 8 bits"):
        canvas_file.read(path)


def test_what_is_no_canvas_is_named_with_the_remedy(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("RGBA", (80, 80), (1, 2, 3, 99)).save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name, reason in [
        ("opaque.png", "no alpha channel"),
        ("empty.png", "fully transparent"),
        ("text.png", "cannot be read"),
        ("torn.png", "cannot be read"),
        ("absent.png", "no such file"),
        ("", "cannot be read"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            canvas_file.read(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)

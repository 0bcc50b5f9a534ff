"""A mark laid over flats by Pillow, saved as PNG and JPEG, and what extraction makes of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from common.command_line import UserError
from preprocessing.marks.from_flats import flats
from preprocessing.marks.from_flats.extract import extract

_WATERMARKS = Path(__file__).parents[3] / "../shared/data/watermarks"
_SHARED = ("datestamp", "northlight_dense", "preview_red", "sample_light", "stamp_corner")


def _draw(mark):
    """Marks of 240 x 180: grey, of one colour, opaque in two colours, of several opacities."""
    canvas = Image.new("RGBA", (240, 180), (255, 255, 255, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(30)
    if mark == "date stamp":
        canvas.paste((255, 165, 40, 0), (0, 0, 240, 180))
        stroke = {"stroke_width": 2, "stroke_fill": (60, 30, 10, 255)}
        draw.text((90, 130), "19.07.14", (255, 165, 40, 255), font, **stroke)
        return canvas
    looks = {"white text": ((255, 255, 255), 150), "red text": ((220, 40, 30), 140), "logo": ((20, 60, 160), 90)}
    color, alpha = looks[mark]
    mask = Image.new("L", canvas.size)
    draw = ImageDraw.Draw(mask)
    if mark == "logo":
        draw.ellipse((40, 30, 150, 140), alpha)
        draw.rectangle((120, 70, 220, 160), 200)
    else:
        for row in range(0, 180, 50):
            draw.text((10 + row // 3, row), "Sample 2024", alpha, font)
    canvas.paste(color, (0, 0, 240, 180))
    canvas.putalpha(mask)
    return canvas


def _flats(canvas, folder, levels, suffix):
    paths = []
    for level in levels:
        alpha = np.asarray(canvas)[..., 3:] / 255
        marked = np.rint((1 - alpha) * level + alpha * np.asarray(canvas)[..., :3]).astype(np.uint8)
        paths.append(str(folder / f"flat{level}.{suffix}"))
        Image.fromarray(marked).save(paths[-1], **({"quality": 90} if suffix == "jpg" else {}))
    return paths


def _errors(found, canvas):
    """Mean errors of opacity over all pixels, over the mark's, and of colour there, in 8-bit levels."""
    true = np.asarray(canvas).astype(int)
    mark = true[..., 3] > 25.5
    opacity = np.abs(found[..., 3].astype(int) - true[..., 3])
    color = np.abs(found[..., :3].astype(int) - true[..., :3])[mark]
    return opacity.mean(), opacity[mark].mean(), color.mean()


@pytest.fixture(params=["white text", "red text", "date stamp", "logo"])
def canvas(request):
    return _draw(request.param)


@pytest.mark.parametrize("levels", [(0, 255), (64, 192), (200, 10), (0, 128, 255)])
def test_png_flats_give_opacity_within_1_and_colour_within_2(canvas, tmp_path, levels):
    found, note = extract(flats.read(_flats(canvas, tmp_path, levels, "png")))
    everywhere, on_mark, color = _errors(found, canvas)
    assert everywhere <= 1 and on_mark <= 1 and color <= 2
    assert "exact" in note


def test_black_and_white_flats_give_every_opacity_that_can_be_seen_exactly(canvas, tmp_path):
    found, _ = extract(flats.read(_flats(canvas, tmp_path, (0, 255), "png")))
    assert np.abs(found[..., 3].astype(int) - np.asarray(canvas)[..., 3]).max() <= 1


@pytest.mark.parametrize("levels", [(0, 255), (64, 192)])
def test_jpeg_flats_give_opacity_within_3_and_colour_within_6(canvas, tmp_path, levels):
    found, note = extract(flats.read(_flats(canvas, tmp_path, levels, "jpg")))
    everywhere, on_mark, color = _errors(found, canvas)
    assert everywhere <= 3 and color <= 6
    # On the mark alone, of which its edges are a large part, and these are what the codec blurs.
    assert on_mark <= (4 if levels == (0, 255) else 6)
    assert "lossy" in note


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_where_there_is_no_mark_the_canvas_is_transparent(canvas, tmp_path, suffix):
    found, _ = extract(flats.read(_flats(canvas, tmp_path, (0, 255), suffix)))
    true = np.asarray(canvas)[..., 3] > 0
    assert np.mean((found[..., 3] > 0) & ~true) < 0.02


@pytest.mark.parametrize("name", _SHARED)
@pytest.mark.parametrize(("suffix", "opacity_limit", "color_limit"), [("png", 1, 2), ("jpg", 3, 6)])
def test_the_shared_canvases_come_back(name, suffix, opacity_limit, color_limit, tmp_path):
    path = _WATERMARKS / f"{name}.png"
    if not path.is_file():
        pytest.skip("no canvases in ../shared/data/watermarks")
    with Image.open(path) as image:  # two rows of stamps are enough
        canvas = image.crop((0, 0, min(image.width, 640), min(image.height, 400)))
    found, _ = extract(flats.read(_flats(canvas, tmp_path, (0, 255), suffix)))
    everywhere, on_mark, color = _errors(found, canvas)
    assert everywhere <= opacity_limit and on_mark <= opacity_limit and color <= color_limit


def test_pillows_own_blending_is_undone_too(canvas, tmp_path):
    paths = []
    for level in (0, 255):
        ground = Image.new("RGBA", canvas.size, (level, level, level, 255))
        paths.append(str(tmp_path / f"{level}.png"))
        Image.alpha_composite(ground, canvas).convert("RGB").save(paths[-1])
    found, _ = extract(flats.read(paths))
    everywhere, on_mark, color = _errors(found, canvas)
    assert everywhere <= 1 and on_mark <= 1 and color <= 2


def test_a_faint_mark_is_not_taken_for_jpegs_noise(tmp_path):
    canvas = _draw("logo")
    canvas.putalpha(canvas.getchannel("A").point(lambda alpha: alpha // 8))
    found, _ = extract(flats.read(_flats(canvas, tmp_path, (0, 255), "jpg")))
    true = np.asarray(canvas)[..., 3]
    assert np.abs(found[..., 3].astype(int) - true)[true > 0].mean() < 2


def test_a_mark_over_nearly_everything_needs_the_levels_said(tmp_path):
    canvas = Image.new("RGBA", (64, 64), (255, 255, 255, 100))
    canvas.paste((255, 255, 255, 0), (0, 0, 8, 8))
    found, _ = extract(flats.read(_flats(canvas, tmp_path, (0, 255), "png"), (0, 255)))
    np.testing.assert_array_equal(found[..., 3], np.asarray(canvas)[..., 3])


@pytest.mark.parametrize(("color", "said"), [((255, 255, 255), "(100 % of it)"), ((0, 0, 0), "darker (100 %)")])
def test_one_flat_gives_a_white_or_a_black_mark_exactly_and_says_what_it_assumed(tmp_path, color, said):
    canvas = _draw("white text")
    canvas = Image.merge("RGBA", [Image.new("L", canvas.size, c) for c in color] + [canvas.getchannel("A")])
    found, note = extract(flats.read(_flats(canvas, tmp_path, (128,), "png")))
    _, on_mark, color_error = _errors(found, canvas)
    assert on_mark <= 1 and color_error <= 2
    assert "Assumed" in note and "level 128" in note
    assert said in note


def test_one_flat_of_a_coloured_mark_gives_one_that_looks_the_same_over_that_grey(tmp_path):
    canvas = _draw("red text")
    paths = _flats(canvas, tmp_path, (128,), "png")
    found, _ = extract(flats.read(paths))
    alpha = found[..., 3:] / 255
    again = (1 - alpha) * 128 + alpha * found[..., :3]
    assert np.abs(again - np.asarray(Image.open(paths[0]))).max() <= 1.5
    assert (found[..., 3] <= np.asarray(canvas)[..., 3] + 1).all()  # the most transparent one


def _refusal(paths, levels=None):
    with pytest.raises(UserError) as raised:
        extract(flats.read([str(path) for path in paths], levels))
    return str(raised.value)


def test_what_is_no_pair_of_flats_is_refused_by_name(tmp_path, photographs):
    canvas = _draw("white text")
    dark, bright = _flats(canvas, tmp_path, (0, 255), "png")
    small, clean = str(tmp_path / "small.png"), str(tmp_path / "clean.png")
    Image.open(bright).crop((0, 0, 100, 100)).save(small)
    Image.new("RGB", canvas.size).save(clean)
    (tmp_path / "text.png").write_text("no picture")
    assert "small.png is 100x100" in _refusal([dark, small]) and "240x180" in _refusal([dark, small])
    assert "too much alike" in _refusal([dark, dark])
    assert "too much alike" in _refusal([dark, bright], (100, 110))
    assert "is not flat" in _refusal([photographs[0]])
    assert "another order" in _refusal([dark, bright], (255, 0))
    assert "alike, whatever their levels" in _refusal([photographs[0], photographs[0]], (0, 255))
    assert "no mark" in _refusal([clean])
    assert "one level for each" in _refusal([dark, bright], (0,))
    assert "0..255" in _refusal([dark, bright], (0, 300))
    assert "no such file" in _refusal([tmp_path / "absent.png"])
    assert "cannot be read" in _refusal([tmp_path / "text.png"])
    assert "--flats" in _refusal([])


def test_a_flat_that_is_transparent_itself_is_refused(tmp_path):
    _draw("white text").save(tmp_path / "mark.png")
    assert "transparent itself" in _refusal([tmp_path / "mark.png"])


def test_the_level_of_a_coloured_flat_is_its_colour(tmp_path):
    canvas = _draw("logo")
    for name, ground in (("a", (30, 40, 20)), ("b", (220, 200, 210))):
        flat = Image.new("RGBA", canvas.size, (*ground, 255))
        Image.alpha_composite(flat, canvas).convert("RGB").save(tmp_path / f"{name}.png")
    read = flats.read([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    np.testing.assert_array_equal(read.levels, [(30, 40, 20), (220, 200, 210)])
    everywhere, _, color = _errors(extract(read)[0], canvas)
    assert everywhere <= 1 and color <= 2

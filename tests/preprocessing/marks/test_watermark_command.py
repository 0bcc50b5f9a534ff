"""The command makes canvases as a user asks for them, and says what is wrong in one line."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from common.command_line import UserError
from preprocessing.marks import canvas_info, draw


def _run(folder, *arguments):
    command = [sys.executable, "-m", "preprocessing.watermark", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": ":".join(sys.path)}, check=False, capture_output=True, text=True
    )


def _alpha(image):
    return np.asarray(image.getchannel("A")).astype(int)


def test_text_then_tile_then_info_from_the_command_line(tmp_path):
    done = _run(tmp_path, "text", r"Sample\n2024", "--size=40", "--opacity=0.5", "--color=#ff8000", "--out=stamp.png")
    assert (done.returncode, done.stderr) == (0, "")
    stamp = Image.open(tmp_path / "stamp.png")
    assert done.stdout == f"stamp.png: {stamp.width} x {stamp.height}\n" and stamp.mode == "RGBA"
    assert 60 < stamp.height < 120 and _alpha(stamp).max() == 128

    done = _run(tmp_path, "tile", "stamp.png", "--size=300", "--gap=10", "--rotate=0", "--out=canvas.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "canvas.png: 300 x 300\n", "")

    done = _run(tmp_path, "info", "canvas.png")
    assert done.returncode == 0 and "size      300 x 300" in done.stdout
    coverage = 100 * (_alpha(Image.open(tmp_path / "canvas.png")) > 0).mean()
    assert f"coverage  {coverage:.3g} % of the pixels" in done.stdout


def test_extract_from_the_command_line_gives_the_mark_back(tmp_path):
    mark = draw.text_stamp("Mine 12", size=60, color="#2060c0", opacity=0.7)
    for level in (0, 255):
        flat = Image.new("RGBA", mark.size, (level,) * 3 + (255,))
        Image.alpha_composite(flat, mark).convert("RGB").save(tmp_path / f"{level}.png")
    done = _run(tmp_path, "extract", "--flats=0.png,255.png", "--levels=0,255")
    assert done.returncode == 0 and done.stdout.startswith("mark.png: ") and "2 unharmed flats" in done.stdout
    found = Image.open(tmp_path / "mark.png")
    assert np.abs(_alpha(found) - _alpha(mark)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say tile, text, extract, estimate, info or bank"),
        (["paint"], "no command 'paint'"),
        (["info"], "info takes one argument"),
        (["info", "absent.png"], "absent.png: no such file"),
        (["text", " "], "the text is empty"),
        (["text", "A", "--color=nocolour"], "nocolour"),
        (["text", "A", "--out=stamp.jpg"], "only a PNG"),
        (["text", "A", "--out=here.png"], "--overwrite replaces it"),
        (["text", "A", "--out=no/folder/stamp.png"], "cannot be written"),
        (["tile", "opaque.png"], "no alpha channel"),
        (["tile", "opaque.png", "--size=0"], "size"),
        (["extract"], "--flats"),
        (["extract", "--flats=opaque.png", "--levels=black"], "not numbers"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(tmp_path, arguments, words):
    Image.new("RGB", (8, 8)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "here.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = _run(tmp_path, *arguments)
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_tiles_are_the_stamp_with_its_gap_and_stagger():
    stamp = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    ImageDraw.Draw(stamp).rectangle((3, 2, 15, 8), (200, 100, 50, 180))
    tiled = np.asarray(draw.tile(stamp, size=100, gap=5, stagger=0.4))
    expected = np.zeros((100, 100, 4), np.uint8)
    for row in range(7):
        for column in range(-2, 5):
            y, x = row * 15, column * 25 + (row % 2) * 10
            for v in range(10):
                for u in range(20):
                    if 0 <= y + v < 100 and 0 <= x + u < 100:
                        expected[y + v, x + u] = stamp.getpixel((u, v))
    np.testing.assert_array_equal(tiled, expected)


def test_a_turned_field_of_a_white_mark_has_no_dark_edges():
    stamp = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    ImageDraw.Draw(stamp).ellipse((5, 5, 25, 25), (255, 255, 255, 200))
    turned = np.asarray(draw.tile(stamp, size=150, gap=8, rotate=33))
    assert turned[turned[..., 3] > 8][:, :3].min() > 235


def test_outlined_text_is_its_colour_inside_and_dark_around():
    stamp = np.asarray(draw.text_stamp("I", size=80, opacity=1, color="white", outline=4))
    middle = stamp[stamp.shape[0] // 2]
    assert (middle[stamp.shape[1] // 2] == 255).all()
    outline = middle[(middle[:, 3] == 255) & (middle[:, 0] < 60)]
    assert len(outline) >= 6  # 4 pixels a side, some of them mixed at the edge
    bare = np.asarray(draw.text_stamp("I", size=80, opacity=1, color="white", outline=0))
    assert bare[bare[..., 3] > 0][:, :3].min() == 255


@pytest.mark.parametrize(
    ("opaque", "words"),
    [(30, "can remove it"), (60, "more than half"), (95, "nothing to learn|5 % of a target")],
)
def test_info_judges_noise2noise_by_coverage(opaque, words):
    mark = Image.new("RGBA", (100, 100), (255, 255, 255, 0))
    mark.paste((255, 255, 255, 128), (0, 0, 100, opaque))
    described = canvas_info.describe(mark)
    assert f"coverage  {opaque} %" in described and "median 0.50" in described
    assert any(word in described for word in words.split("|"))
    assert ("--config.target=clean" in described) == (opaque > 50)


def test_a_colour_with_alpha_of_its_own_is_refused():
    with pytest.raises(UserError, match="alpha of its own"):
        draw.text_stamp("A", color="#ff000080")

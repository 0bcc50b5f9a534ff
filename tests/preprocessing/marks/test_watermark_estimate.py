"""A mark laid over photographs by NumPy, and what comes back where only the marked photographs are given."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from common.command_line import UserError
from preprocessing.marks.from_pictures import estimate

pytestmark = pytest.mark.slow

_SHARED = Path(__file__).parents[3] / "../shared/data"
_SIZE = (170, 230)


def _mark(kind):
    """Marks of 46 x 110 to the edge of the picture that they are drawn on: uint8 RGBA."""
    layer = Image.new("RGBA", (110, 46), (0, 0, 0, 0))
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(26)
    if kind == "white text":
        draw.text((4, 6), "Mine 24", (255, 255, 255, 150), font)
    elif kind == "red text":
        draw.text((4, 6), "Mine 24", (210, 30, 30, 140), font)
    elif kind == "grey text":
        draw.text((4, 6), "Mine 24", (118, 118, 118, 150), font)
    else:
        draw.rounded_rectangle((2, 4, 106, 42), 8, fill=(20, 60, 160, 90))
        draw.ellipse((10, 8, 40, 38), fill=(240, 200, 30, 240))
    return np.asarray(layer)


def _lay(picture, mark, corner, opacity=1.0):
    """The blend, in float64: independent of the code under test."""
    laid = picture.astype(np.float64)
    (y, x), (height, width) = corner, mark.shape[:2]
    alpha = opacity * mark[..., 3:] / 255
    part = laid[y : y + height, x : x + width]
    laid[y : y + height, x : x + width] = (1 - alpha) * part + alpha * mark[..., :3]
    return np.rint(laid).astype(np.uint8)


def _in_frame(canvas, corner, shape):
    """Float64 RGBA `[H, W, 4]` of a picture's size, 0..1 alpha, with the canvas at its corner."""
    frame = np.zeros((*shape, 4))
    height, width = canvas.shape[:2]
    frame[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = canvas
    frame[..., 3] /= 255
    return frame


@pytest.fixture(scope="module")
def crops(photos):
    """Thirty-two different parts of photographs, uint8 `[170, 230, 3]`."""
    height, width = _SIZE
    found = []
    names = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "camera", "hubble_deep_field", "retina")
    for name in names:
        picture = np.asarray(Image.open(photos / "images" / f"{name}.jpg").convert("RGB"))
        for top in range(0, picture.shape[0] - height + 1, height):
            for left in range(0, picture.shape[1] - width + 1, width):
                found.append(picture[top : top + height, left : left + width])
    order = np.random.default_rng(5).permutation(len(found))[:32]
    return [found[number] for number in order]


@pytest.mark.parametrize("kind", ["white text", "red text", "grey text", "logo"])
def test_a_mark_at_one_place_comes_back(crops, kind):
    mark, corner = _mark(kind), (112, 108)
    found = estimate.estimate([_lay(crop, mark, corner) for crop in crops])
    assert found.agreed.all() and (found.corners == found.corners[0]).all()
    true, seen = _in_frame(mark, corner, _SIZE), _in_frame(found.canvas, found.corners[0], _SIZE)
    covered = true[..., 3] > 0.02
    error = np.abs(seen - true)
    assert error[covered][:, 3].mean() < 0.02
    assert error[true[..., 3] > 0.3][:, :3].mean() < 6
    assert (seen[..., 3][true[..., 3] == 0] > 0).mean() < 0.02
    np.testing.assert_allclose(found.opacities, 1, atol=0.05)


def test_opacities_that_differ_are_told_and_the_canvas_has_the_highest(crops):
    mark, corner = _mark("white text"), (20, 60)
    opacities = np.random.default_rng(0).uniform(0.8, 1.0, len(crops))
    found = estimate.estimate([_lay(crop, mark, corner, t) for crop, t in zip(crops, opacities)])
    assert np.corrcoef(found.opacities, opacities)[0, 1] > 0.95
    assert 0.95 < np.quantile(found.opacities, 0.95) < 1.05
    true, seen = _in_frame(mark, corner, _SIZE), _in_frame(found.canvas, found.corners[0], _SIZE)
    assert abs(seen[..., 3].sum() / true[..., 3].sum() - 0.98) < 0.05
    assert "opaque" in found.note


def test_a_picture_is_cleared_by_the_mark_that_was_found(crops):
    mark, corner = _mark("white text"), (60, 60)
    laid = [_lay(crop, mark, corner) for crop in crops]
    found = estimate.estimate(laid)
    true, seen = _in_frame(mark, corner, _SIZE), _in_frame(found.canvas, found.corners[0], _SIZE)
    covered = true[..., 3] > 0.02

    def error(layer):
        alpha = layer[..., 3:]
        cleared = np.clip((laid[0] - alpha * layer[..., :3]) / (1 - alpha), 0, 255)
        return np.sqrt(((cleared - crops[0])[covered] ** 2).mean())

    marked = np.sqrt(((laid[0].astype(float) - crops[0])[covered] ** 2).mean())
    assert error(seen) < marked / 10 and error(true) < 1.5


def test_pictures_without_the_mark_are_named_and_do_no_harm(crops):
    mark, corner = _mark("logo"), (100, 100)
    laid = [crop if number in (3, 17) else _lay(crop, mark, corner) for number, crop in enumerate(crops)]
    found = estimate.estimate(laid)
    assert np.flatnonzero(~found.agreed).tolist() == [3, 17] and found.opacities[3] == 0
    true, seen = _in_frame(mark, corner, _SIZE), _in_frame(found.canvas, found.corners[0], _SIZE)
    assert np.abs(seen - true)[true[..., 3] > 0.02][:, 3].mean() < 0.025


def test_a_corner_holds_it_in_pictures_of_different_sizes(crops):
    mark = _mark("white text")
    rng = np.random.default_rng(2)
    laid, corners = [], []
    for crop in crops:
        part = crop[rng.integers(0, 40) :, rng.integers(0, 60) :]
        corners.append((part.shape[0] - 60, part.shape[1] - 120))
        laid.append(_lay(part, mark, corners[-1]))
    found = estimate.estimate(laid)
    assert found.agreed.all()
    assert np.ptp(found.corners - np.array(corners), axis=0).tolist() == [0, 0]


def test_a_mark_at_random_places_comes_back(crops):
    mark = _mark("white text")
    rng = np.random.default_rng(3)
    corners = np.array([(rng.integers(0, _SIZE[0] - 46), rng.integers(0, _SIZE[1] - 110)) for _ in crops])
    found = estimate.estimate([_lay(crop, mark, corner) for crop, corner in zip(crops, corners)])
    assert found.agreed.mean() > 0.8
    within = (found.corners - corners)[found.agreed]
    offset = np.median(within, axis=0).astype(int)
    assert (within == offset).all(1).mean() > 0.9
    true, seen = _in_frame(mark, (50, 50), _SIZE), _in_frame(found.canvas, offset + 50, _SIZE)
    assert np.abs(seen - true)[true[..., 3] > 0.02][:, 3].mean() < 0.04


def test_pictures_that_are_all_alike_leave_the_opacity_unsure_and_the_note_says_what_to_do(crops):
    mark, corner = _mark("white text"), (60, 60)
    confidences = []
    for divisor, told in ((1, False), (30, True)):
        found = estimate.estimate([_lay(100 + crop // divisor // 2, mark, corner) for crop in crops[:14]])
        confidences.append(found.confidence[found.canvas[..., 3] > 0].mean())
        assert ("more pictures" in found.note) == told
    assert confidences[0] > 0.95 and confidences[1] < 0.8


def test_what_has_no_mark_in_common_is_refused_with_a_remedy(crops):
    with pytest.raises(UserError, match="no mark .*give more.*extract"):
        estimate.estimate(crops[:16])
    with pytest.raises(UserError, match="4 pictures: at least 5"):
        estimate.estimate(crops[:4])


def _run(folder, *arguments):
    command = [sys.executable, "-m", "preprocessing.watermark", "estimate", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": ":".join(sys.path)}, check=False, capture_output=True, text=True
    )


def test_the_command_writes_the_mark_and_its_confidence_and_names_what_it_left(tmp_path, crops):
    mark, corner = _mark("white text"), (60, 60)
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, crop in enumerate(crops[:24]):
        laid = crop if number == 7 else _lay(crop, mark, corner)
        Image.fromarray(laid).save(folder / f"{number:02d}.png")
    (folder / "notes.txt").write_text("no picture")
    done = _run(tmp_path, "archive")
    assert done.returncode == 0, done.stderr
    found, confidence = Image.open(tmp_path / "mark.png"), Image.open(tmp_path / "mark.confidence.png")
    assert found.mode == "RGBA" and confidence.mode == "L" and found.size == confidence.size
    assert f"mark.png: {found.width} x {found.height}, 23 of 24 pictures agree" in done.stdout
    assert "archive/07.png: this mark was not found in it" in done.stdout
    assert "archive/notes.txt: no picture" in done.stdout
    assert done.stdout.count("not found in it") == 1

    again = _run(tmp_path, "archive")
    assert again.returncode == 1 and "--overwrite replaces it" in again.stderr


def test_what_cannot_be_used_is_one_line_and_writes_nothing(tmp_path, crops):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(5):
        file = io.BytesIO()
        Image.fromarray(crops[number]).save(file, "JPEG")
        (broken / f"{number}.jpg").write_bytes(file.getvalue()[: 300 if number == 2 else None])
    for arguments, words in (
        ((), "estimate takes one argument"),
        (("absent",), "absent: cannot be read as a folder"),
        (("empty",), "empty: no pictures in it"),
        (("broken",), "broken/2.jpg: cannot be read as a picture"),
        (("broken", "--out=mark.jpg"), "only a PNG"),
    ):
        done = _run(tmp_path, *arguments)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty"]


def test_the_shared_stamp_comes_back_from_coco_pictures(tmp_path):
    mark_path, folder = _SHARED / "watermarks/stamp_corner.png", _SHARED / "coco/train2017"
    if not mark_path.is_file() or not folder.is_dir():
        pytest.skip("no ../shared/data with COCO pictures and canvases")
    mark = np.asarray(Image.open(mark_path).convert("RGBA"))
    height, width = mark.shape[:2]
    pictures = []
    for path in sorted(folder.iterdir()):
        picture = np.asarray(Image.open(path).convert("RGB"))
        if picture.shape[0] >= 240 and picture.shape[1] >= 500 and len(pictures) < 20:
            picture = picture[60:190, :490]
            pictures.append(_lay(picture, mark, (20, 14)))
    found = estimate.estimate(pictures)
    true, seen = _in_frame(mark, (20, 14), (130, 490)), _in_frame(found.canvas, found.corners[0], (130, 490))
    assert np.abs(seen - true)[true[..., 3] > 0.02][:, 3].mean() < 0.02

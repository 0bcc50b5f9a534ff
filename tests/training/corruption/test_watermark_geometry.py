"""Scaled, turned, tiled, warped, blurred, tinted and blended marks, against Pillow, SciPy and plain formulas."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import gaussian_filter

from training import corruption
from training.corruption import random
from training.corruption.watermark_overlay import _DRAWS


@pytest.fixture
def stamp(tmp_path):
    """A stamp of 30 x 50 with a transparent rim, its path and its pixels in 0..1, premultiplied."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((30, 50, 4), np.uint8)
    # Smooth, as marks are: what two interpolations make of white noise says little.
    smooth = gaussian_filter(rng.uniform(0, 255, (24, 44, 4)), (1.5, 1.5, 0)) * 2.5 - 190
    pixels[3:-3, 3:-3] = np.clip(smooth, 0, 255)
    path = tmp_path / "stamp.png"
    Image.fromarray(pixels).save(path)
    floats = pixels / 255.0
    return path, np.concatenate([floats[..., :3] * floats[..., 3:], floats[..., 3:]], -1)


def _solid(tmp_path, colour, alpha, size=(64, 64)):
    path = tmp_path / "solid.png"
    Image.new("RGBA", size, (*colour, alpha)).save(path)
    return path


def _seeds(count, step=0):
    return corruption.picture_seeds(3, tf.constant(step), 0, count)


def _draws(seeds):
    return dict(zip(_DRAWS, random.per_picture(seeds, len(_DRAWS)).numpy().T))


def _apply(spec, clean, seeds):
    corrupted, alpha = corruption.build(spec)(tf.constant(clean, tf.float32), seeds)
    return corrupted.numpy(), alpha.numpy()


@pytest.mark.parametrize("scale, angle", [(1.0, 25.0), (0.6, 0.0), (1.7, -140.0), (2.5, 90.0)])
def test_a_scaled_and_turned_stamp_lies_where_pillow_puts_it(stamp, scale, angle):
    path, pixels = stamp
    seeds = _seeds(6)
    clean = np.full((6, 80, 90, 3), 0.3)
    corrupted, alpha = _apply(
        f"watermark:canvas={path},opacity=1,scale={scale},rotate={angle},layout=single", clean, seeds
    )
    draws = _draws(seeds)
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    for k in range(6):
        y, x = draws["y"][k] * 80, draws["x"][k] * 90
        # Pillow's affine takes output to input; turning counter-clockwise on the screen, the middle onto (x, y).
        affine = (cos, -sin, 25 - cos * x + sin * y, sin, cos, 15 - sin * x - cos * y)
        layer = np.stack(
            [
                np.asarray(
                    Image.fromarray(pixels[..., c].astype(np.float32)).transform(
                        (90, 80), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
                    )
                )
                for c in range(4)
            ],
            -1,
        )
        np.testing.assert_allclose(alpha[k, ..., 0], layer[..., 3], atol=1.5 / 255)
        expected = clean[k] * (1 - layer[..., 3:]) + layer[..., :3]
        assert np.abs(corrupted[k] - expected).max() <= 1.5 / 255
    assert alpha.max() > 0.3


def test_a_white_mark_leaves_no_dark_fringe_on_white(tmp_path):
    pixels = np.zeros((40, 40, 4), np.uint8)  # transparent black around the mark, as programs save it
    pixels[10:30, 10:30] = 255
    Image.fromarray(pixels).save(tmp_path / "white.png")
    spec = f"watermark:canvas={tmp_path / 'white.png'},scale=0.3..2.7,rotate=-45..45,warp=0..3,blur=0..2,layout=single"
    corrupted, alpha = _apply(spec, np.ones((8, 50, 50, 3)), _seeds(8))
    assert alpha.max() > 0.5
    assert corrupted.min() >= 1.0 - 1.001 / 255


def test_a_shrunk_mark_is_averaged_and_not_sampled(tmp_path):
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[..., 3] = 255 * (np.add.outer(np.arange(256), np.arange(256)) % 2)  # a chequerboard of single pixels
    Image.fromarray(pixels).save(tmp_path / "fine.png")
    _, alpha = _apply(
        f"watermark:canvas={tmp_path / 'fine.png'},opacity=1,scale=0.25", np.zeros((4, 32, 32, 3)), _seeds(4)
    )
    np.testing.assert_allclose(alpha, 0.5, atol=0.02)


def test_tiles_repeat_the_stamp_with_one_gap_and_one_stagger(stamp):
    path, pixels = stamp
    seeds = _seeds(5)
    _, alpha = _apply(f"watermark:canvas={path},opacity=1,layout=tile", np.zeros((5, 150, 170, 3)), seeds)
    draws = {name: values.astype(np.float32) for name, values in _draws(seeds).items()}
    for k in range(5):
        period_y = 30 + np.floor(draws["gap_y"][k] * 0.5 * 30)
        period_x = 50 + np.floor(draws["gap_x"][k] * 0.5 * 50)
        stagger = np.floor(draws["stagger"][k] * period_x)
        from_y, from_x = np.floor(draws["y"][k] * 30), np.floor(draws["x"][k] * 50)
        expected = np.zeros((150, 170))
        for row in range(-2, 8):
            for column in range(-12, 16):
                top, left = int(row * period_y - from_y), int(column * period_x - from_x - row * stagger)
                y, x = np.mgrid[:30, :50] + np.array([top, left])[:, None, None]
                inside = (y >= 0) & (y < 150) & (x >= 0) & (x < 170)
                expected[y[inside], x[inside]] = pixels[..., 3][inside]
        np.testing.assert_allclose(alpha[k, ..., 0], expected, atol=1e-6)


def test_a_single_stamp_falls_anywhere_also_partly_outside(stamp):
    path, pixels = stamp
    _, alpha = _apply(f"watermark:canvas={path},opacity=1,layout=single", np.zeros((200, 64, 64, 3)), _seeds(200))
    shown = alpha.sum(axis=(1, 2, 3)) / pixels[..., 3].sum()
    assert shown.min() > 0.05 and shown.min() < 0.6 and shown.max() > 0.95
    middle = alpha[..., 0].mean(0)
    assert (middle > 0).mean() > 0.98, "every place is reached"


@pytest.mark.parametrize("blend", ["alpha", "screen", "multiply"])
def test_blend_modes_are_their_formulas(tmp_path, astronaut, blend):
    path = _solid(tmp_path, (200, 100, 30), 128)
    clean = astronaut[None, 100:164, 200:264] / 255.0
    corrupted, alpha = _apply(f"watermark:canvas={path},opacity=0.8,blend={blend}", clean, _seeds(1))
    a, c = 128 / 255 * 0.8, np.array([200, 100, 30]) / 255
    np.testing.assert_allclose(alpha, a, atol=1e-5)
    mixed = {"alpha": c, "screen": 1 - (1 - clean) * (1 - c), "multiply": clean * c}[blend]
    assert np.abs(corrupted - ((1 - a) * clean + a * mixed)).max() <= 1.001 / 255


def test_tint_moves_the_colour_by_no_more_than_asked(tmp_path):
    path = _solid(tmp_path, (128, 128, 128), 255)
    corrupted, _ = _apply(f"watermark:canvas={path},opacity=1,tint=0..0.2", np.zeros((64, 8, 8, 3)), _seeds(64))
    moved = corrupted[:, 0, 0] - 128 / 255
    assert 0.05 < np.abs(moved).max() <= 0.2 * 0.51 + 0.005
    assert moved.min() < -0.02 and moved.max() > 0.02 and np.ptp(moved, axis=1).max() > 0.03


def test_blur_is_scipys_gaussian(stamp):
    path, _ = stamp
    clean, seeds = np.zeros((5, 90, 90, 3)), _seeds(5)
    _, sharp = _apply(f"watermark:canvas={path},opacity=1", clean, seeds)
    _, blurred = _apply(f"watermark:canvas={path},opacity=1,blur=1.5", clean, seeds)
    expected = gaussian_filter(sharp[..., 0], (0, 1.5, 1.5), truncate=3.4, mode="constant")
    np.testing.assert_allclose(blurred[..., 0], expected, atol=0.5 / 255)


def test_warp_shifts_smoothly_and_by_no_more_than_asked(tmp_path):
    ramp = np.zeros((200, 200, 4), np.uint8)
    ramp[..., 3] = np.arange(200)  # alpha says from which column a pixel comes
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    spec = f"watermark:canvas={tmp_path / 'ramp.png'},opacity=1"
    clean, seeds = np.zeros((12, 100, 100, 3)), _seeds(12)
    plain, warped = (_apply(spec + more, clean, seeds)[1] * 255 for more in (",warp=0.0001", ",warp=3"))
    shift = (warped - plain)[:, 1:-1, 1:-1, 0]
    assert 0.8 < np.abs(shift).max() <= 3.01
    assert np.abs(np.diff(shift, axis=1)).max() < 0.25 and np.abs(np.diff(shift, axis=2)).max() < 0.25


def test_every_canvas_of_a_bank_is_drawn(tmp_path):
    (tmp_path / "marks").mkdir()
    for level, size in [(50, (9, 7)), (100, (64, 64)), (150, (300, 2)), (200, (1, 1))]:
        Image.new("RGBA", size, (0, 0, 0, level)).save(tmp_path / "marks" / f"{level}.png")
    spec = f"watermark:canvas={tmp_path / 'marks' / '1*.png'};{tmp_path / 'marks' / '50.png'};{tmp_path}/marks/200.png"
    _, alpha = _apply(spec + ",opacity=1", np.zeros((60, 32, 32, 3)), _seeds(60))
    drawn = np.round(alpha.max(axis=(1, 2, 3)) * 255)
    assert set(drawn) == {50, 100, 150, 200}


_EVERYTHING = (
    "opacity=0.3..0.97,scale=0.4..1.6,rotate=-30..30,tint=0..0.2,blur=0..1.5,warp=0..2,layout={layout},blend={blend}"
)


@pytest.mark.parametrize("layout, blend", [("as-is", "alpha"), ("single", "screen"), ("tile", "multiply")])
def test_everything_at_once_compiles_and_depends_on_the_pictures_own_seed(canvas_path, astronaut, layout, blend):
    corrupt = corruption.build(f"watermark:canvas={canvas_path}," + _EVERYTHING.format(layout=layout, blend=blend))
    clean = tf.constant(np.stack([astronaut[20 * k : 20 * k + 48, 100:164] for k in range(5)]) / 255.0, tf.float32)
    plain, covered = corrupt(clean, _seeds(5))
    compiled, _ = tf.function(corrupt, jit_compile=True)(clean, _seeds(5))
    assert np.abs(plain - compiled).max() <= 1.001 / 255
    alone = tf.concat([corrupt(clean[k : k + 1], _seeds(5)[k : k + 1])[0] for k in range(5)], 0)
    assert np.abs(plain - alone).max() <= 1.001 / 255
    assert 0.0 <= covered.numpy().min() and 0.1 < covered.numpy().max() <= 1.0


@pytest.mark.parametrize("layout", ["as-is", "single", "tile"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (65, 33)])
def test_any_picture_size_works(canvas_path, layout, size):
    spec = f"watermark:canvas={canvas_path}," + _EVERYTHING.format(layout=layout, blend="alpha")
    corrupted, alpha = _apply(spec, np.full((2, *size, 3), 0.5), _seeds(2))
    assert corrupted.shape == (2, *size, 3) and alpha.shape == (2, *size, 1)
    assert np.isfinite(corrupted).all()

"""The overlay agrees with alpha blending in NumPy, is drawn per picture, and compiles."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from training import corruption


def _canvas_file(tmp_path, height, width, mode="RGBA"):
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
    pixels[0, 0, 3] = 255  # so that opacity can be read off
    path = tmp_path / f"{height}x{width}.png"
    Image.fromarray(pixels).convert(mode).save(path)
    return path, np.asarray(Image.open(path).convert("RGBA")).astype(np.float64)


def _windows(canvas, height, width):
    """Every place the canvas can take: a window of it where it is larger, whole inside the crop where it is smaller."""
    spare_y, spare_x = max(0, height - canvas.shape[0]), max(0, width - canvas.shape[1])
    field = np.pad(canvas, [(spare_y, spare_y), (spare_x, spare_x), (0, 0)])
    for y in range(field.shape[0] - height + 1):
        for x in range(field.shape[1] - width + 1):
            yield field[y : y + height, x : x + width]


@pytest.mark.parametrize("size", [(14, 13), (8, 8), (5, 4), (5, 30), (1, 1)])
def test_blending_agrees_with_numpy_within_one_level(tmp_path, astronaut, size):
    path, canvas = _canvas_file(tmp_path, *size)
    clean = np.stack([astronaut[100 + 20 * k :, 150:][:8, :8] for k in range(6)])
    corrupt = corruption.build(f"watermark:canvas={path},opacity=0.3..0.97")
    seeds = corruption.picture_seeds(0, tf.constant(3), 0, len(clean))

    corrupted, alpha = (part.numpy() for part in corrupt(tf.constant(clean / 255.0, tf.float32), seeds))

    opacities = set()
    for picture, result, mask in zip(clean, corrupted, alpha):
        # The opacity that explains the returned alpha at the strongest pixel of some window explains all of it.
        def opacity_of(window, mask=mask):
            return mask.max() / (window[..., 3].max() / 255) if window[..., 3].any() else np.inf

        fitting = [
            (window, opacity_of(window))
            for window in _windows(canvas, 8, 8)
            if np.allclose(mask[..., 0], window[..., 3] / 255 * opacity_of(window), atol=1e-5)
        ]
        assert fitting, "the alpha is no window of the canvas"
        expected = [
            picture * (1 - mask) + window[..., :3] * mask for window, opacity in fitting if 0.299 < opacity < 0.971
        ]
        assert min(np.abs(blend - result * 255).max() for blend in expected) <= 1.0
        opacities.add(round(float(fitting[0][1]), 4))
    assert len(opacities) == len(clean), "every picture draws an opacity of its own"


def test_every_offset_comes_up(tmp_path):
    path, canvas = _canvas_file(tmp_path, 10, 9)
    corrupt = corruption.build(f"watermark:canvas={path},opacity=1")
    seeds = corruption.picture_seeds(1, tf.constant(0), 0, 400)
    alpha = corrupt(tf.zeros([400, 8, 8, 3]), seeds)[1].numpy()[..., 0]
    drawn = {mask.tobytes() for mask in np.round(alpha * 255).astype(np.uint8)}
    assert drawn == {window[..., 3].astype(np.uint8).tobytes() for window in _windows(canvas, 8, 8)}


def test_a_picture_is_overlaid_the_same_alone_and_in_a_batch(canvas_path, astronaut):
    corrupt = corruption.build(f"watermark:canvas={canvas_path}")
    clean = tf.constant(np.stack([astronaut[k : k + 64, :64] for k in range(5)]) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(7, tf.constant(11), 0, 5)
    together = corrupt(clean, seeds)[0]
    alone = tf.concat([corrupt(clean[k : k + 1], seeds[k : k + 1])[0] for k in range(5)], 0)
    np.testing.assert_array_equal(together, alone)


def test_xla_gives_the_same_pictures_within_one_level(canvas_path, astronaut):
    corrupt = corruption.build(f"watermark:canvas={canvas_path}")
    clean = tf.constant(np.stack([astronaut[k : k + 64, :64] for k in range(4)]) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(7, tf.constant(11), 0, 4)
    plain, compiled = (tf.function(corrupt, jit_compile=jit)(clean, seeds)[0] for jit in (False, True))
    assert np.abs(plain - compiled).max() <= 1.001 / 255
    assert np.abs(plain - clean).max() > 0.1, "something was overlaid"


def test_steps_and_streams_draw_independently():
    draws = {
        tuple(corruption.picture_seeds(seed, tf.constant(step), stream, 1).numpy()[0])
        for seed in range(4)
        for step in range(4)
        for stream in range(3)
    }
    assert len(draws) == 48


def test_clean_changes_nothing_and_covers_nothing(astronaut):
    clean = tf.constant(astronaut[None, :32, :32] / 255.0, tf.float32)
    corrupted, alpha = corruption.build("clean")(clean, tf.zeros([1, 2], tf.int32))
    np.testing.assert_allclose(corrupted, clean, atol=1e-6)
    assert not alpha.numpy().any()


def test_a_canvas_that_cannot_be_used_is_named_with_the_remedy(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not a picture")
    for name, reason in [
        ("opaque.png", "no alpha channel"),
        ("empty.png", "fully transparent"),
        ("text.png", "cannot be read"),
        ("absent.png", "no such file"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            corruption.build(f"watermark:canvas={tmp_path / name}")
        assert str(tmp_path / name) in str(caught.value)

"""Chains and choices, and what a compiled combination of them gives."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training import corruption


@pytest.fixture
def marks(tmp_path):
    """Two solid canvases, black and white, half opaque."""
    for name, level in [("black", 0), ("white", 255)]:
        Image.new("RGBA", (40, 40), (level, level, level, 128)).save(tmp_path / f"{name}.png")
    return tmp_path


def _apply(spec, clean, count):
    seeds = corruption.picture_seeds(5, tf.constant(1), 0, count)
    return [part.numpy() for part in corruption.build(spec)(tf.constant(clean, tf.float32), seeds)]


def test_a_chain_applies_one_after_the_other(marks):
    spec = f"watermark:canvas={marks}/black.png,opacity=1+watermark:canvas={marks}/white.png,opacity=1"
    corrupted, alpha = _apply(spec, np.full((3, 20, 20, 3), 0.5), 3)
    a = 128 / 255
    np.testing.assert_allclose(corrupted, (0.5 * (1 - a)) * (1 - a) + a, atol=1.5 / 255)
    np.testing.assert_allclose(alpha, 1 - (1 - a) ** 2, atol=1e-5)


def test_the_parts_of_a_chain_draw_independently(canvas_path, astronaut):
    one = f"watermark:canvas={canvas_path},opacity=1"
    clean = np.stack([astronaut[:96, :96]] * 6) / 255.0
    once, twice = _apply(one, clean, 6)[1], _apply(f"{one}+{one}", clean, 6)[1]
    assert (twice > 0.01).mean() > 1.3 * (once > 0.01).mean(), "equal offsets would cover the same pixels"


def test_a_choice_draws_by_weight(marks):
    spec = f"watermark:canvas={marks}/black.png@0.2|watermark:canvas={marks}/white.png@0.3|clean"
    corrupted, alpha = _apply(spec, np.full((2000, 2, 2, 3), 0.5), 2000)
    level = corrupted[:, 0, 0, 0]
    shares = [(level < 0.45).mean(), (level > 0.55).mean(), (np.abs(level - 0.5) < 0.01).mean()]
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.04)
    assert ((alpha[:, 0, 0, 0] > 0) == (np.abs(level - 0.5) > 0.01)).all()


def test_a_combination_is_the_same_compiled(marks, canvas_path, astronaut):
    spec = f"watermark:canvas={canvas_path},scale=0.5..1.5+watermark:canvas={marks}/white.png|clean@0.4"
    corrupt = corruption.build(spec)
    clean = tf.constant(np.stack([astronaut[k : k + 48, :48] for k in range(6)]) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(5, tf.constant(1), 0, 6)
    plain, compiled = (tf.function(corrupt, jit_compile=jit)(clean, seeds)[0].numpy() for jit in (False, True))
    assert np.abs(plain - compiled).max() <= 1.001 / 255

"""Losses are their formulas, have gradients everywhere, and compile."""

import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import structural_similarity

from common.command_line import UserError
from training.losses import pixel_loss, weighted_sum

_NAMES = ["mae", "mse", "charbonnier", "l0", "mae+ssim"]


@pytest.fixture
def pictures(astronaut):
    rng = np.random.default_rng(0)
    clean = np.stack([astronaut[k : k + 40, 100 : 100 + 48] for k in (0, 200)]) / 255.0
    return clean.astype(np.float32), np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "done", "formula"),
    [
        ("mae", 0.3, np.abs),
        ("mse", 0.3, np.square),
        ("charbonnier", 0.3, lambda error: np.sqrt(error**2 + 1e-6)),
        ("l0", 0.0, lambda error: (np.abs(error) + 1e-8) ** 2),
        ("l0", 0.75, lambda error: (np.abs(error) + 1e-8) ** 0.5),
        ("l0", 1.0, np.ones_like),
    ],
)
def test_a_loss_is_its_formula(pictures, name, done, formula):
    restored, target = pictures
    found = pixel_loss(name)(tf.constant(restored), tf.constant(target), tf.constant(done))
    expected = formula((restored - target).astype(np.float64)).mean(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_the_mix_with_ssim_agrees_with_scikit_images(pictures):
    restored, target = pictures
    found = pixel_loss("mae+ssim")(tf.constant(restored), tf.constant(target), tf.constant(0.0)).numpy()
    for k in range(2):
        _, ssim = structural_similarity(
            restored[k].astype(np.float64),
            target[k].astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
            full=True,
        )
        expected = 0.16 * np.abs(restored[k] - target[k]).mean(-1) + 0.84 * (1.0 - ssim.mean(-1))
        # Away from the border, which each continues in its own way.
        np.testing.assert_allclose(found[k, 6:-6, 6:-6, 0], expected[6:-6, 6:-6], atol=2e-3)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", _NAMES)
def test_gradients_are_finite_also_where_nothing_is_wrong(pictures, name, jit):
    restored = tf.constant(pictures[0])

    @tf.function(jit_compile=jit)
    def gradient(target):
        with tf.GradientTape() as tape:
            tape.watch(restored)
            loss = weighted_sum(pixel_loss(name)(restored, target, tf.constant(0.4)), tf.ones_like(target[..., :1]))
        return tape.gradient(loss, restored)

    for target in pictures:
        assert np.isfinite(gradient(tf.constant(target))).all()


def test_weights_choose_the_pixels_that_count():
    loss, weight = np.zeros((2, 4, 4, 1), np.float32), np.zeros((2, 4, 4, 1), np.float32)
    loss[0, 0], weight[0, 0, :2], loss[1], weight[1] = 3.0, 0.5, 2.0, 1.0
    assert float(weighted_sum(tf.constant(loss), tf.constant(weight))) == pytest.approx(3.0 + 2.0)


def test_an_unknown_loss_is_named_with_those_there_are():
    with pytest.raises(UserError, match="'huber'.*charbonnier"):
        pixel_loss("huber")

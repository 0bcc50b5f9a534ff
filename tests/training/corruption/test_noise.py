"""Noise has the moments of NumPy's, falls in the range asked for, and is the same compiled, alone or in a batch."""

import numpy as np
import pytest
import tensorflow as tf

from training import corruption
from training.corruption import noise, spec

_SPECS = ["gaussian", "poisson:peak=1..10000", "poisson:peak=1..40", "impulse"]


def _noise(text):
    kinds = {"gaussian": noise.GaussianNoise, "poisson": noise.PoissonNoise, "impulse": noise.ImpulseNoise}
    return kinds[text.partition(":")[0]](spec.parse(text))


def _corrupt(text, pictures, step=0):
    """Corrupts pictures given in 8-bit levels; returns levels, not rounded, and alpha."""
    seeds = corruption.picture_seeds(5, tf.constant(step), 0, len(pictures))
    # Eager execution costs milliseconds a picture, tracing a good second once.
    corrupt = tf.function(_noise(text)) if len(pictures) > 64 else _noise(text)
    corrupted, alpha = corrupt(tf.constant(pictures / 255.0, tf.float32), seeds)
    return corrupted.numpy().astype(np.float64) * 255.0, alpha.numpy()


def _grey(levels, side=128):
    return np.broadcast_to(np.array(levels, np.float64)[:, None, None, None], [len(levels), side, side, 3])


def _moments(sample):
    centred = sample - sample.mean()
    return (
        sample.mean(),
        centred.std(),
        (centred**3).mean() / centred.std() ** 3,
        (centred**4).mean() / centred.var() ** 2,
    )


@pytest.mark.parametrize("stddev", [0.5, 25, 200])
def test_gaussian_noise_has_the_moments_of_the_normal_distribution(stddev):
    difference = _corrupt(f"gaussian:stddev={stddev}", _grey([128] * 8))[0] - 128
    mean, deviation, skewness, kurtosis = _moments(difference / stddev)
    # Five standard errors each.
    root = np.sqrt(difference.size)
    assert abs(mean) < 5 / root
    assert abs(deviation - 1) < 5 * np.sqrt(1 / 2) / root
    assert abs(skewness) < 5 * np.sqrt(6) / root
    assert abs(kurtosis - 3) < 5 * np.sqrt(24) / root


def test_gaussian_noise_has_the_tails_of_numpys():
    difference = np.abs(_corrupt("gaussian:stddev=1", _grey([128] * 16))[0] - 128).ravel()
    expected = np.abs(np.random.default_rng(0).normal(size=difference.size))
    for limit in [1, 2, 3, 4]:
        ours, theirs = (difference > limit).sum(), (expected > limit).sum()
        assert abs(ours - theirs) < 5 * np.sqrt(ours + theirs)


def test_gaussian_noise_is_white():
    difference = _corrupt("gaussian:stddev=10", _grey([128] * 2))[0] - 128
    flat = difference.reshape(2, -1)
    shifts = [
        (difference[:, 1:], difference[:, :-1]),
        (difference[:, :, 1:], difference[:, :, :-1]),
        (difference[..., 0], difference[..., 1]),
        (difference[0], difference[1]),
        (flat[:, : flat.shape[1] // 2], flat[:, flat.shape[1] // 2 :]),  # the two numbers of a pair
    ]
    for one, other in shifts:
        for power in (1, 2):
            correlation = np.corrcoef(one.ravel() ** power, other.ravel() ** power)[0, 1]
            assert abs(correlation) < 5 / np.sqrt(one.size)


@pytest.mark.parametrize("peak", [1, 2.5, 10, 64, 100, 777, 2000, 10_000])
def test_poisson_counts_are_distributed_as_numpys(peak):
    levels = np.array([0, 1, 3, 17, 64, 128, 200, 254, 255])
    counts = _corrupt(f"poisson:peak={peak}", _grey(levels))[0] / 255 * peak
    np.testing.assert_allclose(counts, np.rint(counts), atol=2e-2, err_msg="counts are whole")
    rng = np.random.default_rng(int(peak))
    for level, count in zip(levels, np.rint(counts).reshape(len(levels), -1)):
        mean, size = level / 255 * peak, count.size
        if level == 0:
            assert not count.any()
            continue
        reference = rng.poisson(mean, size)
        ours, theirs = _moments(count), _moments(reference)
        errors = [np.sqrt(mean), np.sqrt(mean * (1 / 2 + 1 / (4 * mean))), np.sqrt(6 + 40 / mean)]
        for number, error in enumerate(errors):
            # Twice a sample's error, since both are samples.
            assert abs(ours[number] - theirs[number]) < 5 * np.sqrt(2 / size) * error, (level, number, ours, theirs)
        # Chi-squared over bins that hold enough of both.
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, 41)))
        one, other = (np.histogram(sample, [-np.inf, *(edges + 0.5)])[0].astype(float) for sample in (count, reference))
        full = one + other > 20
        statistic = ((one - other)[full] ** 2 / (one + other)[full]).sum()
        assert statistic < full.sum() + 5 * np.sqrt(2 * full.sum()), (level, statistic, full.sum())


def test_poisson_means_are_right_for_every_level():
    peak = 300.0
    counts = _corrupt(f"poisson:peak={peak}", _grey(range(256), 64))[0] / 255 * peak
    expected = np.arange(256) / 255 * peak
    sizes = counts[0].size
    np.testing.assert_array_less(
        np.abs(counts.mean((1, 2, 3)) - expected)[1:], 5 * np.sqrt(expected[1:] / sizes), "means"
    )
    variances = counts.var((1, 2, 3))[1:]
    np.testing.assert_array_less(np.abs(variances / expected[1:] - 1), 5 * np.sqrt((2 + 1 / expected[1:]) / sizes))


@pytest.mark.parametrize("occupancy", [0, 5, 50, 95, 100])
def test_impulse_noise_replaces_the_share_asked_for_by_uniform_colours(occupancy):
    clean = _grey(range(100, 108)) + [0.0, 20.0, 40.0]
    corrupted, alpha = _corrupt(f"impulse:occupancy={occupancy}", clean)
    assert set(np.unique(alpha)) <= {0.0, 1.0}
    replaced = alpha[..., 0] == 1
    share, pixels = occupancy / 100, replaced.size
    assert abs(replaced.sum() - share * pixels) <= 5 * np.sqrt(pixels * share * (1 - share))
    np.testing.assert_allclose(corrupted[~replaced], clean[~replaced], atol=1e-4)
    colors = np.rint(corrupted[replaced]).astype(int)
    np.testing.assert_allclose(corrupted[replaced], colors, atol=1e-4, err_msg="8-bit levels")
    if occupancy >= 50:
        for channel in range(3):
            counts = np.bincount(colors[:, channel], minlength=256)
            # Chi-squared with 255 degrees of freedom.
            assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 5 * np.sqrt(510)
            other = colors[:, (channel + 1) % 3]
            assert abs(np.corrcoef(colors[:, channel], other)[0, 1]) < 5 / np.sqrt(len(colors))


def test_impulse_noise_falls_anywhere():
    _, alpha = _corrupt("impulse:occupancy=50", _grey([0] * 400, 8))
    np.testing.assert_allclose(alpha.mean(0), 0.5, atol=5 * 0.5 / np.sqrt(400))
    neighbours = alpha[:, :, 1:].ravel(), alpha[:, :, :-1].ravel()
    assert abs(np.corrcoef(*neighbours)[0, 1]) < 5 / np.sqrt(neighbours[0].size)


@pytest.mark.parametrize(
    "text, measure, low, high, error",
    [
        ("gaussian:stddev=10..50", lambda c, a: (c - 128).std((1, 2, 3)), 10, 50, 0.06),
        ("poisson:peak=20..60", lambda c, a: 128 * 255 / c.var((1, 2, 3)), 20, 60, 0.12),
        ("impulse:occupancy=20..80", lambda c, a: 100 * a.mean((1, 2, 3)), 20, 80, 0.4),
    ],
)
def test_each_picture_draws_its_strength_from_the_whole_range(text, measure, low, high, error):
    strengths = np.sort(measure(*_corrupt(text, _grey([128] * 300, 32))))
    assert low * (1 - error) <= strengths[0] and strengths[-1] <= high * (1 + error)
    # Kolmogorov and Smirnov's distance to the uniform distribution; 1.63 is the 99 % quantile.
    uniform = low + (high - low) * np.arange(300) / 300
    assert np.abs(np.searchsorted(strengths, uniform) / 300 - np.arange(300) / 300).max() < 1.63 / np.sqrt(300)


@pytest.mark.parametrize("text", ["gaussian", "poisson"])
def test_noise_that_covers_nothing_says_so(text):
    alpha = _corrupt(text, _grey([100]))[1]
    assert alpha.shape == (1, 128, 128, 1) and not alpha.any()


@pytest.mark.parametrize("text", _SPECS)
def test_a_picture_is_corrupted_the_same_alone_and_in_a_batch(text, astronaut):
    clean = tf.constant(np.stack([astronaut[k : k + 37, :41] for k in range(5)]) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(7, tf.constant(11), 0, 5)
    corrupt = _noise(text)
    together = corrupt(clean, seeds)[0]
    alone = tf.concat([corrupt(clean[k : k + 1], seeds[k : k + 1])[0] for k in range(5)], 0)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("text", _SPECS)
def test_xla_gives_the_same_pictures_within_one_level(text, astronaut):
    clean = tf.constant(np.stack([astronaut[20 * k :, 100:][:96, :96] for k in range(8)]) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(3, tf.constant(2), 0, 8)
    (plain, alpha), (compiled, compiled_alpha) = (
        tf.function(_noise(text), jit_compile=jit)(clean, seeds) for jit in (False, True)
    )
    assert np.abs(plain - compiled).max() <= 0.01 / 255
    np.testing.assert_array_equal(alpha, compiled_alpha)
    assert np.abs(plain - clean).max() > 0.05, "something was corrupted"


@pytest.mark.parametrize("text", _SPECS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_any_size_works(text, size):
    corrupted, alpha = _corrupt(text, np.full([3, *size, 3], 77.0))
    assert corrupted.shape == (3, *size, 3) and alpha.shape == (3, *size, 1)
    assert np.isfinite(corrupted).all()


def test_poisson_noise_takes_values_outside_the_range_to_its_ends():
    corrupted, _ = _corrupt("poisson:peak=10", np.stack([np.full([32, 32, 3], -40.0), np.full([32, 32, 3], 400.0)]))
    assert not corrupted[0].any()
    assert abs(corrupted[1].mean() - 255) < 5 * 255 / np.sqrt(10 * corrupted[1].size)

"""PSNR agrees with scikit-image's."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from training.evaluation import psnr


@pytest.fixture
def pair(astronaut):
    noise = np.random.default_rng(0).integers(-20, 21, astronaut.shape)
    return np.clip(astronaut + noise, 0, 255).astype(np.uint8), astronaut


def test_psnr_agrees_with_scikit_image(pair):
    assert psnr.psnr(*pair) == pytest.approx(peak_signal_noise_ratio(pair[1], pair[0]), abs=1e-4)


def test_psnr_over_a_mask_counts_only_its_pixels(pair):
    where = np.zeros(pair[0].shape[:2], bool)
    where[100:200, 50:300] = True
    expected = peak_signal_noise_ratio(pair[1][100:200, 50:300], pair[0][100:200, 50:300])
    assert psnr.psnr(*pair, where) == pytest.approx(expected, abs=1e-4)


def test_an_exact_picture_counts_as_68_db_and_an_empty_mask_as_nothing(pair):
    assert psnr.psnr(pair[1], pair[1]) == pytest.approx(68.13, abs=0.01)
    assert np.isnan(psnr.psnr(*pair, np.zeros(pair[0].shape[:2], bool)))


def test_a_picture_without_covered_pixels_is_left_out_of_their_mean(pair):
    covered = np.zeros((2, *pair[0].shape[:2]), bool)
    covered[0, :100] = True
    figures = psnr.summarize(np.stack([pair[0]] * 2), np.stack([pair[1]] * 2), covered)
    assert figures["covered_psnr"] == pytest.approx(psnr.psnr(*pair, covered[0]))
    assert figures["psnr"] == pytest.approx(psnr.psnr(*pair))

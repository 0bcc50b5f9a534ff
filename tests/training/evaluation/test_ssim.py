"""SSIM agrees with scikit-image's and with its formula in NumPy."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from training.evaluation import figures, ssim


@pytest.fixture(scope="module")
def pair(astronaut):
    noise = np.random.default_rng(0).integers(-30, 31, astronaut.shape)
    return np.clip(astronaut + noise, 0, 255).astype(np.uint8)[:140, :97], astronaut[:140, :97]


def _by_scikit_image(picture, clean):
    """Its map, without the five pixels on each side where its window leaves the picture."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    local = structural_similarity(clean, picture, channel_axis=2, full=True, **options)[1]
    return local.mean(axis=2)[5:-5, 5:-5]


def _by_formula(picture, clean, row, column):
    """Wang et al. (2004), one window, in float64."""
    offset = np.arange(11) - 5
    weights = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    weights = (weights / weights.sum())[..., None]
    x, y = (part[row : row + 11, column : column + 11].astype(np.float64) for part in (picture, clean))
    mean_x, mean_y = (weights * x).sum((0, 1)), (weights * y).sum((0, 1))
    var_x, var_y = (weights * (x - mean_x) ** 2).sum((0, 1)), (weights * (y - mean_y) ** 2).sum((0, 1))
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum((0, 1))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def test_the_map_agrees_with_scikit_image(pair):
    np.testing.assert_allclose(ssim.ssim_map(*pair), _by_scikit_image(*pair), atol=2e-4)


@pytest.mark.parametrize("row, column", [(0, 0), (37, 50), (129, 86)])
def test_a_window_agrees_with_the_formula(pair, row, column):
    assert ssim.ssim_map(*pair)[row, column] == pytest.approx(_by_formula(*pair, row, column), abs=2e-4)


def test_a_tall_picture_is_computed_in_strips_without_a_seam(pair, monkeypatch):
    whole = ssim.ssim_map(*pair)
    monkeypatch.setattr(ssim, "_STRIP", 48)
    np.testing.assert_allclose(ssim.ssim_map(*pair), whole, atol=1e-5)


def test_over_covered_pixels_the_windows_around_them_count(pair):
    covered = np.zeros(pair[0].shape[:2], bool)
    covered[0:30, 20:60] = True  # the first five rows have no window
    expected = _by_scikit_image(*pair)[0:25, 15:55].mean()
    assert ssim.mean_ssim(ssim.ssim_map(*pair), covered) == pytest.approx(expected, abs=1e-4)


def test_an_equal_picture_has_an_ssim_of_one(pair):
    assert ssim.mean_ssim(ssim.ssim_map(pair[1], pair[1])) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("height, width, windows", [(11, 11, 1), (11, 40, 30), (10, 40, 0), (40, 10, 0), (1, 1, 0)])
def test_below_eleven_pixels_there_is_none(astronaut, height, width, windows):
    picture = astronaut[:height, :width]
    local = ssim.ssim_map(picture, picture)
    assert local.size == windows
    whole, none = ssim.mean_ssim(local, np.ones((height, width), bool)), np.zeros((height, width), bool)
    assert np.isnan(whole) if not windows else whole == pytest.approx(1.0)
    assert np.isnan(ssim.mean_ssim(local, none))


def test_figures_that_are_not_defined_are_none(astronaut):
    tiny = astronaut[:5, :7]
    judged = figures.judge(tiny, tiny, tiny, np.zeros((5, 7), bool))
    assert {name for name, value in judged.items() if value is None} == {
        f"{measure}_{stage}" for measure in ("covered_psnr", "ssim", "covered_ssim") for stage in ("in", "out", "gain")
    }
    assert judged["covered_share"] == 0 and judged["psnr_in"] == pytest.approx(68.131, abs=1e-3)
    summary = figures.summarize([judged, {**judged, "ssim_in": 0.5}, {**judged, "ssim_in": 0.25}])
    assert summary["ssim_in"] == {"mean": 0.375, "median": 0.375, "pictures": 2}
    assert summary["ssim_out"] == {"mean": None, "median": None, "pictures": 0}

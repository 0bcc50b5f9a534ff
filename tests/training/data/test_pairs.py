"""Pairs: independent overlays, the same on device and host, and which pixels teach what."""

import numpy as np
import pytest
import tensorflow as tf

from configs import default
from training.data.pairs import Pairs, make_pairs, make_seeds, overlaid_on_host


def _config(source, **fields):
    config = default.get_config()
    config.source, config.batch_size = source, 4
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture
def crops(astronaut):
    return np.stack([astronaut[100 + 40 * k :, 150:][:64, :64] for k in range(4)])


def _pairs(config, crops, step=0):
    pairs = make_pairs(config)(tf.constant(crops), *make_seeds(config)(tf.constant(step)))
    return Pairs(*(part.numpy() for part in pairs))


def test_source_and_target_are_overlaid_independently(canvas_path, crops):
    config = _config(f"watermark:canvas={canvas_path}")
    pairs = _pairs(config, crops)
    assert np.abs(pairs.source - pairs.target).max() > 0.2
    assert 0.1 < pairs.covered.mean() < 0.9
    assert set(np.unique(pairs.weight)) == {0.0, 1.0, 1.0 + config.covered_weight}


def test_where_the_target_is_covered_nothing_is_learned_unless_asked(canvas_path, crops):
    spec = f"watermark:canvas={canvas_path}"
    pairs = _pairs(_config(spec), crops)
    changed = np.abs(pairs.target - crops / 255.0).max(-1, keepdims=True) > 0.01
    assert changed.any() and not pairs.weight[changed].any()
    assert _pairs(_config(spec, mask_target=False), crops).weight.min() == 1.0


def test_clean_targets_are_the_crops_themselves(canvas_path, crops):
    pairs = _pairs(_config(f"watermark:canvas={canvas_path}", target="clean"), crops)
    np.testing.assert_allclose(pairs.target * 255, crops, atol=1e-3)
    assert pairs.weight.min() == 1.0 and not pairs.target_coverage.any()


@pytest.mark.parametrize(
    "spec",
    [
        "watermark:canvas={},scale=0.5..1.5,rotate=-30..30,warp=0..2,blur=0..1.5,layout=tile",
        "text:occupancy=5..30+jpeg:quality=60..95",
        "gaussian|poisson|impulse",
    ],
)
def test_the_host_makes_the_pairs_that_the_device_makes(canvas_path, crops, spec):
    config = _config(spec.format(canvas_path))
    batches = tf.data.Dataset.from_tensors(crops).repeat(3)
    for step, host in enumerate(overlaid_on_host(batches, config, first_step=7)):
        for one, other in zip(host, _pairs(config, crops, 7 + step)):
            assert np.abs(one - other).max() <= 1.001 / 255


def test_clean_pictures_teach_that_nothing_covers_them(canvas_path, crops):
    pairs = _pairs(_config("clean"), crops)
    assert not pairs.covered.any() and pairs.covered_weight.min() == 1.0


def test_the_targets_coverage_is_the_share_of_pixels_that_its_overlay_changed(canvas_path, crops):
    # Grey crops, that every opaque enough pixel of a white or coloured mark changes.
    grey = np.full_like(crops, 100)
    pairs = _pairs(_config(f"watermark:canvas={canvas_path},opacity=1"), grey)
    changed = (np.abs(pairs.target * 255 - 100).max(-1) >= 1).mean((1, 2))
    np.testing.assert_allclose(pairs.target_coverage, changed, atol=0.02)

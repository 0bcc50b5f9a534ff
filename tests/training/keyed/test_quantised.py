"""JPEG after a mark is told from a mark that was laid last, also on photographs that were JPEGs before."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.marks import corner_for, lay, placed
from training.keyed.quantised import was_saved_as_jpeg


def _judged(picture, mark, corner, opacity):
    alpha = placed(mark, corner, *picture.shape[:2])[..., 3] / 255 * opacity
    arguments = tf.constant(picture / np.float32(255)), tf.constant(alpha.astype(np.float32))
    # A window that begins between blocks sees the same as the whole.
    window = [x[3:, 5:] for x in arguments]
    whole, part = was_saved_as_jpeg(*arguments, tf.constant([0, 0])), was_saved_as_jpeg(*window, tf.constant([3, 5]))
    return bool(whole), bool(part)


@pytest.mark.parametrize(("quality", "subsampling"), [(97, 0), (95, 2), (85, 0), (60, 2)])
def test_jpeg_after_the_mark_is_seen(mark, crops, quality, subsampling):
    rng = np.random.default_rng(3)
    for clean in crops[:6]:
        corner, opacity = corner_for(mark, 256, rng), rng.uniform(0.6, 1.0)
        laid, _ = lay(clean, mark, corner, opacity)
        file = io.BytesIO()
        Image.fromarray(laid).save(file, "JPEG", quality=quality, subsampling=subsampling)
        assert _judged(np.asarray(Image.open(file)), mark, corner, opacity) == (True, True)


def test_jpeg_before_the_mark_is_not(mark, crops):
    rng, seen = np.random.default_rng(3), []
    for clean in crops[:6]:
        corner, opacity = corner_for(mark, 256, rng), rng.uniform(0.6, 1.0)
        file = io.BytesIO()
        Image.fromarray(clean).save(file, "JPEG", quality=85)
        laid, _ = lay(np.asarray(Image.open(file)), mark, corner, opacity)
        seen += _judged(laid, mark, corner, opacity)
    # Where it cannot be told, as on a saturated sky, repair is the safe side.
    assert sum(seen) <= 2


def test_what_cannot_be_told_counts_as_jpeg():
    picture = tf.zeros([5, 5, 3])
    assert was_saved_as_jpeg(picture, tf.zeros([5, 5]), tf.constant([0, 0]))

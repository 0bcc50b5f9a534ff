"""A canvas is found where it lies, whatever its colour, and is not found where it does not."""

import numpy as np
import pytest
import tensorflow as tf

from tests.marks import CANVASES, corner_for, lay
from training.keyed import canvas_features, locate

pytestmark = pytest.mark.slow


def _score_map(picture, features):
    fields = locate.picture_fields(tf.constant(picture[None] / np.float32(255)))
    return locate.score_map(fields, features)


def _found(picture, features):
    scores, corners = locate.best_offset(_score_map(picture, features), tf.constant(picture.shape[:2]), features)
    return float(scores[0]), tuple(corners[0].numpy())


def _features(mark):
    layer = canvas_features.premultiplied(mark)
    return canvas_features.canvas_features(layer, canvas_features.spanning(layer))


def _same_place(found, corner, mark, side=256):
    """Whether a field looks the same at both corners, which differ by its period."""
    moved = np.zeros((2, side, side, 4))
    for layer, (top, left) in zip(moved, (found, corner)):
        lay_over = np.zeros((3 * side + 1200, 3 * side + 1200, 4))
        start = side + 600
        lay_over[start + top : start + top + mark.shape[0], start + left : start + left + mark.shape[1]] = mark
        layer[:] = lay_over[start : start + side, start : start + side]
    return np.abs(moved[0] - moved[1])[..., 3].mean() < 2.0


def test_few_fields_span_what_a_search_needs():
    for name, rank in [("red", 1), ("dark", 1), ("white and dark", 2)]:
        layer = canvas_features.premultiplied(np.asarray(CANVASES[name]))
        features = canvas_features.canvas_features(layer, canvas_features.spanning(layer))
        assert features.gradients.shape[0] == rank, name
        along_x = np.einsum("kr,rhw->hwk", features.gradient_mixing, features.gradients[:, 0])
        expected = np.diff(np.pad(layer, ((1, 1), (1, 1), (0, 0)))[..., [3, 0, 1, 2]], axis=1)
        # Resampled colours are not exactly of one hue.
        np.testing.assert_allclose(along_x[:, :-1], expected, atol=0.04)


def test_scores_are_the_sums_that_define_them(crops, monkeypatch):
    monkeypatch.setattr(locate, "DAMPING", 0.0)
    rng = np.random.default_rng(0)
    picture, mark = crops[0][100:140, 90:138], rng.integers(0, 256, (9, 12, 4), dtype=np.uint8)
    scores = _score_map(picture, _features(mark)).numpy()[0]

    x = picture.astype(np.float64) / 255
    planes = tf.constant(x.transpose(2, 0, 1), tf.float32)
    low_pass = locate.blur(planes, 12.0).numpy().transpose(1, 2, 0).astype(np.float64)
    of_x = np.zeros((*x.shape[:2], 2, 3))
    of_x[:, :-1, 0], of_x[:-1, :, 1] = np.diff(x, axis=1), np.diff(x, axis=0)
    power = (of_x**2).mean(axis=(2, 3))[None]
    strength = np.sqrt(locate.blur(tf.constant(power, tf.float32), 6.0).numpy()[0]) + 2 / 255
    whitened = np.clip(of_x / strength[..., None, None], -3, 3) / strength[..., None, None]
    for top, left in [(3, 4), (0, 0), (-5, 20), (31, 36), (20, -4)]:
        canvas = np.zeros((*x.shape[:2], 4))
        big = np.zeros((80, 80, 4))
        big[20 + top : 29 + top, 20 + left : 32 + left] = mark / 255.0
        big[..., :3] *= big[..., 3:]
        canvas = big[19 : 21 + x.shape[0], 19 : 21 + x.shape[1]]  # with a border, for the differences
        gradients = np.stack([np.diff(canvas, axis=1)[1:-1, 1:], np.diff(canvas, axis=0)[1:, 1:-1]], axis=2)
        blend = gradients[..., :3] - low_pass[:, :, None] * gradients[..., 3:]
        expected = (blend * whitened).sum() / np.sqrt((blend**2 / strength[..., None, None] ** 2).sum())
        # Rank reduction drops a little of a mark of random colours.
        assert scores[top - 1, left - 1] == pytest.approx(expected, rel=0.02, abs=0.05)


@pytest.mark.parametrize("jpeg", [None, 85])
def test_a_canvas_is_found_where_it_lies(mark, crops, jpeg):
    features, rng = _features(mark), np.random.default_rng(1)
    clean_scores, right = [], 0
    for clean in crops:
        corner = corner_for(mark, 256, rng)
        laid, _ = lay(clean, mark, corner, rng.uniform(0.6, 0.95), jpeg)
        score, found = _found(laid, features)
        clean_score, _ = _found(clean, features)
        clean_scores.append(clean_score)
        right += _same_place(found, corner, mark) and score > 1.5 * clean_score
    assert right == len(crops), f"{right} of {len(crops)}; scores without the mark {np.round(clean_scores, 1)}"


@pytest.mark.parametrize("corner", [(-20, -60), (230, 40), (100, 200)])
def test_a_stamp_that_lies_partly_outside_is_found(crops, corner):
    mark = np.asarray(CANVASES["one stamp"])
    for clean in crops[:4]:
        laid, _ = lay(clean, mark, corner, 0.9)
        assert _found(laid, _features(mark))[1] == corner

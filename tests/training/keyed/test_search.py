"""Scale and angle are found without being known."""

import math

import numpy as np
import pytest
import tensorflow as tf

from preprocessing.marks import draw
from tests.marks import CANVASES, lay
from training.keyed import canvas_features, finder, placement, search

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "corner", "scale", "degrees"),
    [("white and dark", (-150.0, -90.0), 1.37, -2.0), ("one stamp", (60.0, 30.0), 0.8, 1.0)],
)
def test_an_unknown_scale_and_angle_are_found(crops, name, corner, scale, degrees):
    canvas = np.asarray(CANVASES[name])
    layer = canvas_features.premultiplied(canvas)
    true = placement.Placement(*(tf.constant(value, tf.float32) for value in (corner, scale, math.radians(degrees))))
    over = placement.over_picture(tf.constant(layer), true, tf.constant([256, 256])).numpy()
    found = tf.function(finder.Finder(canvas, (0.7, 1.5), (-3.0, 3.0)).first)

    right = 0
    for clean in crops[:5]:
        laid = np.round((clean / 255 * (1 - 0.9 * over[..., 3:]) + 0.9 * over[..., :3]) * 255)
        match = found(tf.constant(laid, tf.uint8))
        where = match.placement
        again = placement.over_picture(tf.constant(layer), where, tf.constant([256, 256])).numpy()
        right += bool(np.abs(again - over)[..., 3].sum() < 0.15 * over[..., 3].sum() and float(match.score) > 20)
        assert float(where.scale) == pytest.approx(scale, rel=0.005)
    assert right == 5


def test_one_angle_at_a_time_finds_what_all_at_once_do(astronaut, monkeypatch):
    stamp = np.asarray(CANVASES["one stamp"])
    laid, _ = lay(astronaut, stamp, (300, 90), 0.9)
    layer = canvas_features.premultiplied(stamp)
    shrunk = tf.constant(canvas_features.shrunk(layer, search.FINE))
    features = canvas_features.canvas_features(shrunk, canvas_features.spanning(layer))
    scales, angles = tf.constant([0.9, 1.0, 1.1]), tf.constant([-0.05, 0.0, 0.05])

    def found():
        picture = tf.constant(laid / 255, tf.float32)
        scores, where = search.search(picture, features, search.FINE, stamp.shape[:2], scales, angles, 9)
        return np.column_stack([scores, where.corner, where.scale, where.rotation])

    at_once = found()
    monkeypatch.setattr(search, "_MOST_POINTS", 0)
    np.testing.assert_allclose(found(), at_once, rtol=1e-3, atol=1e-3)
    assert at_once[0] == pytest.approx([at_once[0, 0], 300, 90, 1, 0], abs=4)


@pytest.mark.parametrize("name", ["white and dark", "one stamp"])
def test_periods_are_shifts_at_which_a_canvas_is_itself(name):
    layer = canvas_features.premultiplied(np.asarray(CANVASES[name]))
    shifts = canvas_features.periods(layer).astype(int)
    assert shifts[0].tolist() == [0, 0]
    assert (len(shifts) > 4) == (name != "one stamp")
    height, width = layer.shape[:2]
    for y, x in shifts:
        here = layer[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
        there = layer[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
        assert np.abs(here - there).mean() < 0.35 * layer.mean(), (y, x)


@pytest.mark.parametrize(("corner", "scale", "degrees"), [((-25.0, -20.0), 0.95, 0.0), ((-60.0, -90.0), 1.1, 1.5)])
def test_a_field_is_found_where_it_covers_the_whole_picture(astronaut, corner, scale, degrees):
    canvas = np.asarray(CANVASES["white and dark"])
    layer, size = tf.constant(canvas_features.premultiplied(canvas)), tf.constant(astronaut.shape[:2])
    true = placement.Placement(*(tf.constant(value, tf.float32) for value in (corner, scale, math.radians(degrees))))
    over = placement.over_picture(layer, true, size).numpy()
    laid = np.round((astronaut / 255 * (1 - 0.9 * over[..., 3:]) + 0.9 * over[..., :3]) * 255)
    match = tf.function(finder.Finder(canvas, (0.8, 1.25), (-3.0, 3.0)).first)(tf.constant(laid, tf.uint8))
    again = placement.over_picture(layer, match.placement, size).numpy()
    # A period beside, a strip of the picture would be without.
    assert np.abs(again - over)[..., 3].mean() < 0.1 * over[..., 3].mean()


def test_of_repeats_that_differ_by_fractions_of_a_pixel_the_right_one_is_found(astronaut, crops):
    field = np.asarray(draw.tile(draw.text_stamp("Sample text", size=26, opacity=0.9), gap=40, rotate=25.0))
    layer = canvas_features.premultiplied(field)
    shifts = canvas_features.periods(layer)
    assert len(shifts) > 10 and not canvas_features.repeats_exactly(layer, shifts)
    find = tf.function(finder.Finder(field, (1.0, 1.0), (0.0, 0.0)).first)
    for picture, corner in [(astronaut, (-310, -205)), (astronaut, (-57, -444)), (crops[1], (-600, -390))]:
        laid, _ = lay(picture, field, corner, 0.9)
        match = find(tf.constant(laid))
        assert tuple(match.placement.corner.numpy()) == corner


def test_a_field_on_whole_pixels_repeats_exactly():
    layer = canvas_features.premultiplied(np.tile(np.asarray(CANVASES["one stamp"]), (4, 2, 1)))
    shifts = canvas_features.periods(layer)
    assert len(shifts) > 2 and canvas_features.repeats_exactly(layer, shifts)


@pytest.mark.parametrize(("opacity", "is_found"), [(0.05, False), (0.1, False), (0.2, True), (0.3, True)])
def test_what_is_fainter_than_a_mark_may_be_is_not_taken_for_one(astronaut, opacity, is_found):
    stamp = np.asarray(CANVASES["one stamp"])
    laid, _ = lay(astronaut, stamp, (300, 90), opacity)
    match = tf.function(finder.Finder(stamp, (1.0, 1.0), (0.0, 0.0)).first)(tf.constant(laid))
    assert (float(match.score) >= finder.FOUND) == is_found


@pytest.mark.parametrize(("seen", "is_found"), [(4, False), (20, False), (150, True)])
def test_a_strip_along_the_border_is_not_taken_for_a_field(astronaut, seen, is_found):
    field = np.asarray(CANVASES["white and dark"])
    laid, _ = lay(astronaut, field, (astronaut.shape[0] - seen, 0), 0.9)
    match = tf.function(finder.Finder(field, (1.0, 1.0), (0.0, 0.0)).first)(tf.constant(laid))
    assert (float(match.score) >= finder.FOUND) == is_found

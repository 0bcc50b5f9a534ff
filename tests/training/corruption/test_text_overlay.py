"""Text covers the share that was drawn, with whole letters as Pillow draws them, and the same compiled or not."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from training import corruption
from training.corruption import glyphs, spec
from training.corruption.text_overlay import TextOverlay


def _overlay(parameters=""):
    return TextOverlay(spec.parse(f"text:{parameters}"))


def _seeds(count, step=0):
    return corruption.picture_seeds(5, tf.constant(step), 0, count)


def _covered(alpha):
    """Percent of each picture's pixels."""
    return 100 * (np.asarray(alpha) > corruption.COVERED).mean((1, 2, 3))


@pytest.fixture
def crops(astronaut):
    corners = np.random.default_rng(0).integers(0, 512 - 128, (16, 2))
    pictures = np.stack([astronaut[y : y + 128, x : x + 128] for y, x in corners])
    return tf.constant(pictures / 255.0, tf.float32)


@pytest.mark.parametrize("size", ["12..48", "12", "48"])
@pytest.mark.parametrize("occupancy", [0, 3, 20, 50])
def test_ink_covers_the_share_within_two_points(occupancy, size):
    overlay = _overlay(f"occupancy={occupancy},size={size}")
    covered = _covered(overlay(tf.zeros([40, 128, 128, 3]), _seeds(40))[1])
    assert np.abs(covered - occupancy).max() <= 2.0, covered


@pytest.mark.parametrize("parameters", ["occupancy=60", "occupancy=35,size=6..128", "occupancy=30,opacity=0.05..0.4"])
def test_the_share_is_met_at_the_ends_of_what_a_spec_may_ask(parameters):
    overlay = _overlay(parameters)
    covered = _covered(overlay(tf.zeros([30, 128, 128, 3]), _seeds(30))[1])
    assert np.abs(covered - float(parameters[10:12])).max() <= 2.0, covered


def test_the_share_is_uniform_within_its_range():
    covered = np.sort(_covered(_overlay("occupancy=10..50")(tf.zeros([200, 128, 128, 3]), _seeds(200))[1]))
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) is the 99.9 % quantile of the distance; 1.5 / 40 is what whole words cost.
    distance = np.abs(covered - np.linspace(10, 50, 200)).max() / 40
    assert distance < 1.95 / np.sqrt(200) + 1.5 / 40


def _drawn_by_pillow(letter, size, stroke):
    image = Image.new("L", (100, 100))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((40, 60), letter, fill=255, font=font, anchor="ls", stroke_width=stroke)
    return np.asarray(image.crop(image.getbbox()))


@pytest.mark.parametrize("size", [13, 24])
def test_what_is_shown_is_whole_letters_as_pillow_draws_them(monkeypatch, size):
    monkeypatch.setitem(glyphs.SCRIPTS, "latin", {"lower": "n", "upper": "g"})
    alpha = _overlay(f"occupancy=4..8,size={size},opacity=1")(tf.zeros([12, 128, 128, 3]), _seeds(12))[1]
    letters = [_drawn_by_pillow(letter, size, stroke) for letter in "ng" for stroke in {0, size // 20}]
    explained = 0
    for ink in np.round(alpha.numpy()[..., 0] * 255).astype(np.uint8):
        left_over = ink.copy()
        for letter in letters:
            windows = np.lib.stride_tricks.sliding_window_view(ink, letter.shape)
            for y, x in np.argwhere((windows == letter).all((-1, -2))):
                left_over[y : y + letter.shape[0], x : x + letter.shape[1]] = 0
                explained += 1
        # At the border letters are cut off by the picture.
        assert not left_over[size:-size, 2 * size : -2 * size].any()
    assert explained > 12 * 3


def test_blending_agrees_with_numpy(crops):
    corrupted, alpha = (
        part.numpy() for part in _overlay("occupancy=5..50,color=ff8000,opacity=0.7")(crops, _seeds(16))
    )
    expected = crops * (1 - alpha) + np.array([255, 128, 0]) / 255 * alpha
    assert np.abs(corrupted - expected).max() * 255 < 0.01
    # Full ink has the opacity, and ink on ink no more than that.
    np.testing.assert_allclose(alpha.max((1, 2, 3)), 0.7, rtol=1e-6)


def test_opacity_is_drawn_for_every_picture_within_its_range():
    alpha = _overlay("occupancy=20,opacity=0.3..0.8")(tf.zeros([60, 64, 64, 3]), _seeds(60))[1].numpy()
    opacity = alpha.max((1, 2, 3))
    assert 0.3 <= opacity.min() < 0.35 and 0.75 < opacity.max() <= 0.8001
    assert len(set(opacity)) == 60


def test_a_random_color_differs_from_line_to_line_and_a_fixed_one_does_not():
    def colors(parameters):
        corrupted, alpha = _overlay(f"occupancy=30,opacity=1,{parameters}")(tf.zeros([8, 128, 128, 3]), _seeds(8))
        return [set(map(tuple, np.round(one[mask[..., 0] == 1] * 255))) for one, mask in zip(corrupted, alpha.numpy())]

    assert colors("color=0a64C8") == [{(10, 100, 200)}] * 8
    for parameters in ("color=any", "size=12..48"):  # the second says nothing of the color
        several = colors(parameters)
        assert min(map(len, several)) > 1
        assert len(set.union(*several)) > 30
        is_grey = [len(set(rgb)) == 1 for rgb in set.union(*several)]
        assert 0.2 < np.mean(is_grey) < 0.8


def test_a_picture_is_overlaid_the_same_alone_and_in_a_batch_and_again(crops):
    overlay, seeds = _overlay(), _seeds(5)
    together = overlay(crops[:5], seeds)
    for k in range(5):
        for part, alone in zip(together, overlay(crops[k : k + 1], seeds[k : k + 1])):
            np.testing.assert_array_equal(part[k : k + 1], alone)
    assert len({mask.tobytes() for mask in together[1].numpy()}) == 5, "every picture has a text of its own"


def test_xla_gives_the_same_pictures_within_one_level(crops):
    overlay = _overlay("occupancy=0..60,alphabet=latin+digits")
    plain, compiled = (tf.function(overlay, jit_compile=jit) for jit in (False, True))
    for step in range(4):
        for one, other in zip(plain(crops, _seeds(16, step)), compiled(crops, _seeds(16, step))):
            assert np.abs(one - other).max() <= 1.001 / 255


@pytest.mark.parametrize("height, width", [(1, 1), (17, 300), (300, 5), (2, 64)])
def test_pictures_of_any_size_are_written_on(height, width):
    clean = tf.fill([6, height, width, 3], 0.5)
    corrupted, alpha = (part.numpy() for part in _overlay("occupancy=40")(clean, _seeds(6)))
    assert corrupted.shape == (6, height, width, 3) and alpha.shape == (6, height, width, 1)
    assert 0.0 <= alpha.min() and alpha.max() <= 1.0 and np.isfinite(corrupted).all()
    if height * width > 100:
        assert alpha.any()


def test_digits_alone_need_no_letters():
    alpha = _overlay("occupancy=20,alphabet=digits")(tf.zeros([4, 64, 64, 3]), _seeds(4))[1]
    assert _covered(alpha).min() > 17

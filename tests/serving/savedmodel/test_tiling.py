"""Pictures of any size come back in their size, and tiles leave no trace."""

import numpy as np
import pytest
import tensorflow as tf

from serving.savedmodel.tiling import Tiling
from tests.serving.conftest import HALO, STRIDE, SmallNetwork, export, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiled_model(tmp_path_factory):
    """The small network again, forced to cut everything into tiles of 20 pixels."""
    return load(export(SmallNetwork(), tmp_path_factory.mktemp("tiled"), tile=20, max_untiled_pixels=0))


def restore(model, images):
    return model.signatures["restore"](images=tf.constant(images))["restored"].numpy()


def crop(photo, height, width):
    repeats = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.ascontiguousarray(np.tile(photo, repeats)[:height, :width])


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 7), (17, 1), (3, 5), (4, 4), (20, 36), (37, 35), (61, 133), (255, 257), (1, 700), (300, 2)],
)
def test_tiled_equals_untiled_within_one_level_at_any_size(small_model, tiled_model, photo, height, width):
    image = crop(photo, height, width)[np.newaxis]
    untiled, tiled = restore(small_model, image), restore(tiled_model, image)
    assert untiled.shape == tiled.shape == image.shape
    assert np.abs(untiled.astype(int) - tiled).max() <= 1
    if min(height, width) > 3:
        assert np.abs(untiled.astype(int) - image).mean() > 2, (
            "the network must change the picture for this to mean anything"
        )


def test_a_halo_that_is_too_small_shows(photo, tmp_path, small_model):
    """The comparison above would notice a wrong halo: with none at all, the seams appear."""
    without_halo = load(export(SmallNetwork(), tmp_path, halo=0, tile=20, max_untiled_pixels=0))
    image = crop(photo, 61, 133)[np.newaxis]
    difference = np.abs(restore(small_model, image).astype(int) - restore(without_halo, image))
    assert difference.max() > 1


def test_each_picture_of_a_tiled_batch_is_restored_as_if_alone(small_model, tiled_model, photo):
    batch = np.stack([crop(photo, 61, 45), crop(photo[100:], 61, 45), crop(photo[200:, 100:], 61, 45)])
    restored = restore(tiled_model, batch)
    alone = np.concatenate([restore(small_model, image[np.newaxis]) for image in batch])
    assert np.abs(restored.astype(int) - alone).max() <= 1


class Blur(tf.Module):
    """One 3x3 convolution that sees zeros beyond its input, declared with a stride of 8."""

    def __init__(self):
        super().__init__()
        self.weights = np.random.default_rng(5).uniform(0, 0.11, (3, 3)).astype(np.float32)
        self.kernel = tf.Variable(np.einsum("hw,io->hwio", self.weights, np.eye(3, dtype=np.float32)))

    def __call__(self, images):
        return tf.nn.conv2d(images, self.kernel, 1, "SAME")


@pytest.mark.parametrize("tiling", [{}, {"tile": 8, "max_untiled_pixels": 0}], ids=["untiled", "tiled"])
def test_the_edge_is_padded_as_numpy_reflects(photo, tmp_path, tiling):
    network = Blur()
    model = load(export(network, tmp_path, stride=8, halo=1, **tiling))
    for height, width in [(1, 1), (1, 7), (17, 1), (2, 5), (29, 43)]:
        image = crop(photo, height, width)
        to_stride = ((0, -height % 8), (0, -width % 8), (0, 0))
        padded = np.pad(image.astype(np.float64), to_stride, mode="reflect")
        padded = np.pad(padded, ((1, 1), (1, 1), (0, 0)))
        expected = sum(
            network.weights[dy, dx] * padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)
        )
        restored = restore(model, image[np.newaxis])[0]
        assert np.abs(restored - expected).max() <= 0.51, (height, width)


def test_the_identity_returns_every_value_exactly(identity_model):
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    noise = np.random.default_rng(0).integers(0, 256, (2, 131, 97, 3), dtype=np.uint8)
    for images in (levels, noise):
        np.testing.assert_array_equal(restore(identity_model, images), images)


def test_values_are_rounded_and_clipped(tmp_path):
    model = load(export(lambda images: images * 2.0 - 0.5, tmp_path))
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    expected = np.clip(np.round(image.astype(np.float64) * 2 - 127.5), 0, 255)
    restored = restore(model, image)
    assert restored.min() == 0 and restored.max() == 255
    assert np.abs(restored - expected).max() <= 1  # halves may round either way


def test_an_empty_picture_is_an_invalid_argument(small_model):
    for shape in [(1, 0, 5, 3), (1, 5, 0, 3), (0, 5, 5, 3)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="at least 1"):
            restore(small_model, np.zeros(shape, np.uint8))


def test_geometry_is_rounded_up_to_the_stride():
    tiling = Tiling.of_network(16, 100)
    assert (tiling.halo, tiling.tile, tiling.max_untiled_pixels) == (112, 560, (560 + 224) ** 2)
    assert Tiling.of_network(16, 9).tile == 512
    assert Tiling.of_network(STRIDE, HALO, tile=1).tile == STRIDE
    with pytest.raises(ValueError, match="stride 0"):
        Tiling.of_network(0, 0)

"""A keyed export restores what its canvas covers, leaves the rest alone, and serves like any other."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.command_line import UserError
from serving.key import key
from tests.marks import CANVASES, lay


@pytest.fixture(scope="module", params=["white and dark", "one stamp"])
def keyed(request, tmp_path_factory):
    """The canvas, and the loaded export."""
    folder = tmp_path_factory.mktemp("keyed")
    CANVASES[request.param].save(folder / "mark.png")
    version = key(str(folder / "mark.png"), str(folder / "export"), repair="")
    assert version == folder / "export" / "1"
    return np.asarray(CANVASES[request.param]), tf.saved_model.load(str(version))


def _corner(canvas):
    return (-150, -40) if canvas.shape[0] > 512 else (300, 90)


def test_covered_pixels_are_restored_and_others_are_left_alone(keyed, astronaut):
    canvas, loaded = keyed
    laid, covered = lay(astronaut, canvas, _corner(canvas), 0.9)
    found = loaded.signatures["restore"](images=tf.constant(laid[None]))
    restored = found["restored"].numpy()[0]
    error = np.square(restored[covered].astype(float) - astronaut[covered]).mean()
    assert 10 * np.log10(255**2 / error) > 40
    np.testing.assert_array_equal(restored[~covered], laid[~covered])
    assert found["opacity"].numpy()[0] == pytest.approx(0.9, abs=0.005)
    assert found["score"].shape == [1] and found["transform"].numpy()[0, 2:].tolist() == [1.0, 0.0]


def test_a_picture_without_the_canvas_comes_back_untouched(keyed, crops):
    _, loaded = keyed
    found = loaded.signatures["restore"](images=tf.constant(crops))
    np.testing.assert_array_equal(found["restored"], crops)
    assert not found["opacity"].numpy().any()


def test_files_are_restored_too(keyed, astronaut):
    canvas, loaded = keyed
    laid, covered = lay(astronaut, canvas, _corner(canvas), 0.9)
    file = io.BytesIO()
    Image.fromarray(laid).save(file, "PNG")
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant([file.getvalue()]))["restored_bytes"]
    restored = np.asarray(Image.open(io.BytesIO(answer.numpy()[0])))
    assert np.abs(restored[covered].astype(int) - astronaut[covered]).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 3), (65, 200)])
def test_any_size_is_answered(keyed, size):
    picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    restored = keyed[1].signatures["restore"](images=tf.constant(picture))["restored"]
    assert restored.shape == picture.shape


def test_what_is_no_canvas_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="photo.png: has no alpha channel"):
        key(str(tmp_path / "photo.png"), str(tmp_path / "export"), repair="")
    assert not (tmp_path / "export").exists()

"""A keyed export restores what its canvas covers, leaves the rest alone, and serves like any other."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from configs import default
from serving.key import key, refine
from tests.marks import CANVASES, lay
from training.keyed import finder
from training.keyed.restore import KeyedRestorer

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["white and dark", "one stamp"])
def keyed(request, tmp_path_factory):
    """The canvas, and the loaded export."""
    folder = tmp_path_factory.mktemp("keyed")
    CANVASES[request.param].save(folder / "mark.png")
    version = key(str(folder / "mark.png"), str(folder / "export"), repair="", scale="1", rotate="0")
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


def test_a_picture_smaller_than_the_step_of_a_large_canvas_is_answered():
    # So large a canvas is looked for at half the resolution, at which such a picture has no pixel of its own.
    canvas = np.tile(np.asarray(CANVASES["white and dark"]), (3, 2, 1))
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    restore = tf.function(KeyedRestorer(canvas, None, (1.0, 1.0), (0.0, 0.0)), input_signature=signature)
    for size in ((1, 1), (1, 5), (7, 1)):
        picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
        np.testing.assert_array_equal(restore(tf.constant(picture))["restored"], picture)


@pytest.mark.parametrize(("opacity", "is_taken"), [(0.1, False), (0.3, True)])
def test_what_the_fit_finds_too_faint_comes_back_untouched(astronaut, monkeypatch, opacity, is_taken):
    monkeypatch.setattr(finder, "_LEAST_OPACITY", 0.0)  # the search has a limit of its own
    stamp = np.asarray(CANVASES["one stamp"])
    laid, covered = lay(astronaut, stamp, (300, 90), opacity)
    found = KeyedRestorer(stamp, scales=(1.0, 1.0), degrees=(0.0, 0.0))(tf.constant(laid[None]))
    assert (found["restored"].numpy()[0] != laid)[covered].any() == is_taken
    assert bool(found["score"].numpy()[0]) == bool(found["opacity"].numpy()[0]) == is_taken


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


@pytest.fixture(scope="module")
def repairing_folder(tmp_path_factory):
    """An export for a stamp as `serving.key` writes it by default."""
    folder = tmp_path_factory.mktemp("repairing")
    CANVASES["one stamp"].save(folder / "mark.png")
    return str(key(str(folder / "mark.png"), str(folder / "export")))


@pytest.fixture(scope="module")
def repairing(repairing_folder):
    """The same, loaded."""
    return tf.saved_model.load(repairing_folder)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 1)])
def test_any_size_is_searched_at_all_scales(repairing, size):
    """A client begins with a picture of one pixel."""
    picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    found = repairing.signatures["restore"](images=tf.constant(picture))
    np.testing.assert_array_equal(found["restored"], picture)
    assert not found["found"].numpy().any()


def _psnr(restored, clean, covered):
    return 10 * np.log10(255**2 / np.square(restored.astype(float) - clean)[covered].mean())


def test_a_session_runs_it_too(repairing, repairing_folder, astronaut):
    """TF Serving and saved_model_cli have no eager calls: a graph may run there and not here, and the other way."""
    stamp = np.asarray(CANVASES["one stamp"])
    twice, _ = lay(lay(astronaut, stamp, (300, 90), 0.9)[0], stamp, (40, 200), 0.9)
    larger = CANVASES["one stamp"].resize((round(1.4 * stamp.shape[1]), round(1.4 * stamp.shape[0])))
    scaled, _ = lay(astronaut, np.asarray(larger), (200, 40), 0.9)
    pictures = np.stack([twice, scaled, astronaut])
    expected = repairing.signatures["restore"](images=tf.constant(pictures))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], repairing_folder).signature_def["restore"]
        outputs = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = session.run(outputs, {signature.inputs["images"].name: pictures})
    assert (found["opacity"][:2] > 0.8).all() and found["transform"][1, 2] == pytest.approx(1.4, rel=0.01)
    assert np.abs(found["restored"].astype(int) - expected["restored"].numpy()).max() <= 1


def test_a_stamp_is_found_as_often_as_it_lies_there(repairing, astronaut):
    stamp = np.asarray(CANVASES["one stamp"])
    once, one = lay(astronaut, stamp, (60, 20), 0.9)
    twice, two = lay(once, stamp, (330, 150), 0.7)
    thrice, three = lay(twice, stamp, (470, -30), 0.8)  # partly outside
    restored = repairing.signatures["restore"](images=tf.constant(thrice[None]))["restored"].numpy()[0]
    for covered in (one, two, three):
        assert _psnr(restored, astronaut, covered) > 40
    uncovered = ~(one | two | three)
    np.testing.assert_array_equal(restored[uncovered], thrice[uncovered])


def test_what_jpeg_leaves_is_repaired(repairing, astronaut):
    stamp = np.asarray(CANVASES["one stamp"])
    laid, covered = lay(astronaut, stamp, (300, 90), 0.9, jpeg=85)
    inverted = tf.function(KeyedRestorer(stamp, None, (1.0, 1.0), (0.0, 0.0)))(tf.constant(laid[None]))["restored"]
    repaired = repairing.signatures["restore"](images=tf.constant(laid[None]))["restored"].numpy()[0]
    assert _psnr(repaired, astronaut, covered) > _psnr(inverted.numpy()[0], astronaut, covered) + 2
    np.testing.assert_array_equal(repaired[~covered], laid[~covered])


def test_a_scaled_and_turned_stamp_is_found(repairing, astronaut):
    stamp = CANVASES["one stamp"]
    scaled = stamp.resize((round(1.4 * stamp.width), round(1.4 * stamp.height)), Image.Resampling.BICUBIC)
    turned = np.asarray(scaled.rotate(2, Image.Resampling.BICUBIC, expand=True))
    laid, covered = lay(astronaut, turned, (200, 40), 0.9)
    found = repairing.signatures["restore"](images=tf.constant(laid[None]))
    _, _, scale, rotation = found["transform"].numpy()[0]
    assert scale == pytest.approx(1.4, rel=0.01)
    assert np.degrees(rotation) == pytest.approx(2, abs=0.2)
    assert _psnr(found["restored"].numpy()[0], astronaut, covered) > _psnr(laid, astronaut, covered) + 8


def test_a_mark_of_another_brightness_is_taken_off(keyed, astronaut):
    canvas, loaded = keyed
    darker = np.rint(canvas * np.array([0.8, 0.85, 0.9, 1.0])).astype(np.uint8)
    laid, covered = lay(astronaut, darker, _corner(canvas), 0.9)
    found = loaded.signatures["restore"](images=tf.constant(laid[None]))
    assert _psnr(found["restored"].numpy()[0], astronaut, covered) > 36


def test_the_repair_network_can_be_refined_for_a_mark(dataset, tmp_path):
    CANVASES["one stamp"].save(tmp_path / "mark.png")
    command = [sys.executable, "-m", "serving.key", f"--canvas={tmp_path}/mark.png", f"--export_dir={tmp_path}/export"]
    command += ["--scale=1", "--rotate=0", f"--workdir={tmp_path}/refine", "--refine=refine"]
    fields = {"data.dir": dataset, "data.crop": 48, "data.shuffle_crops": 8, "batch_size": 2, "steps": 3}
    command += [f"--refine.{name}={value}" for name, value in (fields | {"val_crops": 2, "val_crop": 64}).items()]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    info = json.loads((tmp_path / "export" / "1" / "export_info.json").read_text())
    assert info["repair"]["step"] == 3
    assert info["repair"]["config"]["source"] == f"watermark:canvas={tmp_path}/mark.png,opacity=0.4..1"
    assert info["repair"]["config"]["init"].endswith("pretrained/repair")


def test_what_cannot_be_refined_is_named(tmp_path):
    with pytest.raises(UserError, match="config.model.name is 'unet'; name a recipe such as refine"):
        refine(default.get_config(), "mark.png", str(tmp_path))


def test_a_range_that_is_none_is_named(tmp_path):
    CANVASES["one stamp"].save(tmp_path / "mark.png")
    with pytest.raises(UserError, match="--scale=2..1: 2..1 must rise within 0.25..4"):
        key(str(tmp_path / "mark.png"), str(tmp_path / "export"), repair="", scale="2..1")


def test_what_is_no_canvas_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="photo.png: has no alpha channel"):
        key(str(tmp_path / "photo.png"), str(tmp_path / "export"), repair="")
    assert not (tmp_path / "export").exists()

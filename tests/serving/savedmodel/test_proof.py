"""A version appears only after it did in a fresh process what is on record."""

import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from serving import key as key_command
from serving.export import export
from serving.savedmodel import proof, sample
from serving.savedmodel.writer import write_saved_model
from tests.marks import CANVASES
from training import loop
from training.run import exportable, validation_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(dataset, canvas_path, tmp_path_factory):
    """The workdir of a short run."""
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 32, 32
    config.source = f"watermark:canvas={canvas_path}"
    config.model.features, config.model.blocks = (16, 24), (1, 1)
    config.batch_size, config.steps, config.log_every = 4, 30, 10
    config.eval_every = config.checkpoint_every = 30
    config.val_crops, config.val_crop = 4, 64
    workdir = tmp_path_factory.mktemp("run")
    loop.train_and_evaluate(config, str(workdir), tf.distribute.OneDeviceStrategy("/cpu:0"), False)
    return workdir


def _psnr(restored, clean):
    return np.mean([10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()) for a, b in zip(restored, clean)])


def test_an_export_reaches_what_validation_recorded(run, tmp_path):
    version = export(str(run), str(tmp_path))
    recorded = exportable.load(str(run)).info["validation_psnr"]
    with np.load(run / "validation.npz") as crops:
        restored = tf.saved_model.load(str(version)).signatures["restore"](images=tf.constant(crops["corrupted"]))
        assert _psnr(restored["restored"].numpy(), crops["clean"]) == pytest.approx(recorded, abs=0.01)


def test_weights_that_do_less_are_no_version(run, tmp_path, monkeypatch):
    load = exportable.load

    def load_damaged(*arguments):
        trained = load(*arguments)
        trained.network.set_weights([weight * 1.3 for weight in trained.network.get_weights()])
        return trained

    monkeypatch.setattr(exportable, "load", load_damaged)
    with pytest.raises(
        UserError, match=r"restores to [\d.]+ dB in a fresh process.*step 30 says [\d.]+ dB; no version"
    ):
        export(str(run), str(tmp_path / "export"))
    assert list((tmp_path / "export").iterdir()) == []


def test_a_more_cautious_export_is_compared_with_the_cautious_network(run, tmp_path):
    assert export(str(run), str(tmp_path), caution=2.0).name == "1"


def test_a_run_without_its_crops_is_compared_by_its_dataset_or_says_that_it_is_not(run, tmp_path, caplog):
    older = tmp_path / "older"
    shutil.copytree(run, older)
    (older / "validation.npz").unlink()
    config = exportable.read_config(str(older))
    with np.load(run / "validation.npz") as crops:
        np.testing.assert_array_equal(validation_samples.load(str(older), config).corrupted, crops["corrupted"])
    text = (older / "config.json").read_text().replace(config.data.dir, "gone")
    (older / "config.json").write_text(text)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert export(str(older), str(tmp_path / "export")).name == "1"
    assert any("not compared" in record.getMessage() and "gone" in record.getMessage() for record in caplog.records)


def test_what_does_not_load_is_told_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"does not run in a fresh process \(exit code 1: .*no version"):
        proof.outputs(tmp_path, np.zeros([1, 4, 4, 3], np.uint8))


def test_a_process_that_dies_leaves_no_version(tmp_path):
    def prove(folder, _):
        (folder / "saved_model.pb").write_bytes(b"not a graph")
        proof.outputs(folder, np.zeros([1, 4, 4, 3], np.uint8))

    with pytest.raises(UserError, match="fresh process"):
        write_saved_model(tf.identity, stride=1, halo=0, export_dir=tmp_path / "export", prove=prove)
    assert list((tmp_path / "export").iterdir()) == []


def test_a_keyed_export_that_differs_elsewhere_is_no_version(tmp_path, monkeypatch):
    CANVASES["one stamp"].save(tmp_path / "mark.png")

    def outputs(folder, images):
        return {"restored": images, "found": np.array([True])}

    monkeypatch.setattr(proof, "outputs", outputs)
    with pytest.raises(UserError, match="the same graph in this process says"):
        key_command.key(str(tmp_path / "mark.png"), str(tmp_path / "export"), repair="", scale="1", rotate="0")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_mark_that_cannot_be_found_is_said(tmp_path, caplog):
    tf.keras.utils.save_img(str(tmp_path / "mark.png"), np.full((4, 4, 4), 200), scale=False)
    with caplog.at_level(logging.WARNING, logger="absl"):
        key_command.key(str(tmp_path / "mark.png"), str(tmp_path / "export"), repair="", scale="1", rotate="0")
    assert any("not found on a sample" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", ["one stamp", "white and dark"])
def test_the_sample_carries_the_mark(name):
    rgba = np.asarray(CANVASES[name])
    marked, clean = sample.marked(rgba)
    assert marked.shape == clean.shape == (480, 640, 3) and marked.dtype == clean.dtype == np.uint8
    changed = (marked != clean).any(axis=-1)
    assert changed.sum() > 0.3 * (rgba[..., 3] > 40).sum() or changed.mean() > 0.05
    assert 40 < clean.mean() < 215 and clean.std() > 10

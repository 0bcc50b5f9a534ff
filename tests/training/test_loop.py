"""A run learns, is resumed, keeps its best weights, and refuses what it cannot use."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from configs import default
from training import loop, schedule
from training.data.pairs import make_seeds
from training.distributed import devices
from training.run import exportable
from training.run.finite import FiniteLoss
from training.validation import Validation, make_restore

pytestmark = pytest.mark.slow


def _config(dataset, canvas_path, **fields):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 48, 64
    config.source = f"watermark:canvas={canvas_path}"
    config.model.features, config.model.blocks = (16, 24), (1, 1)
    config.batch_size, config.steps, config.log_every = 8, 60, 10
    config.eval_every = config.checkpoint_every = 30
    config.val_crops, config.val_crop = 4, 64
    config.update_from_flattened_dict(fields)
    return config


def _train(config, workdir):
    return loop.train_and_evaluate(config, str(workdir), tf.distribute.OneDeviceStrategy("/cpu:0"), False)


@pytest.fixture(scope="module")
def trained(dataset, canvas_path, tmp_path_factory):
    """A finished short run: its recipe, folder and last figures."""
    config, workdir = _config(dataset, canvas_path), tmp_path_factory.mktemp("run")
    return config, workdir, _train(config, workdir)


def test_a_short_run_already_restores_covered_pixels(trained):
    config, _, figures = trained
    assert figures["covered_psnr"] > Validation(config).before["covered_psnr"] + 0.5


def test_tensorboard_holds_scalars_and_pictures(trained):
    (events,) = (trained[1] / "tensorboard").iterdir()
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value}
    assert {
        "config",
        "training/loss",
        "training/gradient_norm",
        "training/learning_rate",
        "training/images_per_second",
        "validation/psnr",
        "validation/covered_psnr",
        "validation/clean_overlaid_restored",
    } <= tags


def test_the_best_weights_are_exportable_and_do_what_validation_said(trained):
    config, workdir, _ = trained
    loaded = exportable.load(str(workdir))
    validation = Validation(config)
    again = validation.judge(make_restore(loaded.network)(validation.source))
    assert again["psnr"] == pytest.approx(loaded.info["validation_psnr"], abs=0.01)
    assert loaded.info["validation"] == pytest.approx(again, abs=0.01)
    assert loaded.stride == 4 and loaded.info["step"] in (30, 60)
    json.dumps(loaded.info, allow_nan=False)


def test_a_run_without_its_table_is_exportable_all_the_same(trained, tmp_path):
    shutil.copytree(trained[1], tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").unlink()
    info = exportable.load(str(tmp_path / "run")).info
    assert info["validation"] == {} and info["validation_psnr"] > 0


def test_a_finished_run_is_not_trained_again(trained, tmp_path):
    config, workdir, figures = trained
    shutil.copytree(workdir, tmp_path / "run")
    before = exportable.load(str(tmp_path / "run")).network.get_weights()
    again = _train(config, tmp_path / "run")
    assert again == pytest.approx(figures, abs=1e-3)
    for one, other in zip(before, exportable.load(str(tmp_path / "run")).network.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_an_interrupted_run_continues_at_its_checkpoint(trained, tmp_path, monkeypatch):
    config, workdir, _ = trained
    shutil.copytree(workdir, tmp_path / "run")
    # As if killed after the first checkpoint: the newest is step 30's.
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-60*"):
        path.unlink()
    started_at = []
    progress = schedule.progress
    monkeypatch.setattr(schedule, "progress", lambda step, *rest: started_at.append(step) or progress(step, *rest))
    _train(config, tmp_path / "run")
    assert started_at[0] == 30 and started_at[-1] == 60


def test_a_workdir_of_another_config_is_refused_with_the_difference(trained, dataset, canvas_path):
    other = _config(dataset, canvas_path, learning_rate=0.5, **{"data.crop": 64})
    with pytest.raises(UserError) as caught:
        _train(other, trained[1])
    message = str(caught.value)
    assert "config.learning_rate is 0.5 here and 0.001 there" in message
    assert "config.data.crop is 64 here and 48 there" in message
    assert "config.steps" not in message


def test_a_run_without_a_validated_checkpoint_cannot_be_exported(trained, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        exportable.load(str(tmp_path))
    shutil.copy(trained[1] / "config.json", tmp_path)
    with pytest.raises(UserError, match="no validated checkpoint"):
        exportable.load(str(tmp_path))


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_step(dataset, canvas_path, tmp_path):
    config = _config(dataset, canvas_path, learning_rate=1e30, warmup=0.0, clip_norm=1e30)
    with pytest.raises(
        UserError, match=r"step \d: the loss is .* gradients (nan|inf); its seeds are in .*not_finite.json"
    ) as caught:
        _train(config, tmp_path)
    saved = json.loads((tmp_path / "not_finite.json").read_text())
    assert f"step {saved['step']}:" in str(caught.value) and 1 <= saved["step"] < 10
    # The seeds of that step's overlays, by which its batch can be made again.
    source, target = make_seeds(config)(tf.constant(saved["step"]))
    assert saved["source_seeds"] == source.numpy().tolist() and saved["target_seeds"] == target.numpy().tolist()
    assert not list((tmp_path / "checkpoints").glob("*.index"))


def test_a_run_in_float16_continues_with_its_loss_scale(dataset, canvas_path, tmp_path):
    def train(workdir, **fields):
        config = _config(dataset, canvas_path, steps=12, log_every=3, checkpoint_every=3, **fields)
        loop.train_and_evaluate(
            config,
            str(workdir),
            tf.distribute.OneDeviceStrategy("/cpu:0"),
            False,
            precision=devices.choose_precision("float16"),
        )

    train(tmp_path / "run")
    newest = tf.train.latest_checkpoint(tmp_path / "run" / "checkpoints")
    reader = tf.train.load_checkpoint(newest)
    good_steps = [key for key in reader.get_variable_to_shape_map() if "good_steps" in key]
    assert reader.get_tensor(good_steps[0]) == 12
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-12*"):
        path.unlink()
    train(tmp_path / "run")
    assert tf.train.load_checkpoint(newest).get_tensor(good_steps[0]) == 12  # 9 of them before
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        scales = [row["loss_scale"] for row in csv.DictReader(file) if row["loss"]]
    assert set(scales) == {"32768.0"}
    assert exportable.load(str(tmp_path / "run")).network.layers[1].compute_dtype == "float32"


@pytest.mark.parametrize(("loss", "loss_scale"), [(0.5, 1.0), (np.nan, 2.0)])
def test_gradients_that_overflow_are_no_failure_where_the_loss_was_scaled(loss, loss_scale, tmp_path, canvas_path):
    finite = FiniteLoss(_config("", canvas_path), str(tmp_path))

    def step(loss, loss_scale):
        values = {"loss": loss, "gradient_norm": np.nan, "loss_scale": loss_scale}
        finite.collect(5, {name: tf.constant([value], tf.float32) for name, value in values.items()})

    step(0.5, 2.0)
    assert np.isnan(finite.check(None)["gradient_norm"])
    step(loss, loss_scale)
    with pytest.raises(UserError, match="step 5: the loss is"):
        finite.check(None)


def test_several_steps_in_one_call_learn_what_single_ones_do(trained, dataset, canvas_path, tmp_path):
    fields = {"data.deterministic": True, "steps": 30}
    _train(_config(dataset, canvas_path, **fields), tmp_path / "single")
    _train(_config(dataset, canvas_path, **fields, steps_per_execution=7), tmp_path / "seven")
    one, other = (exportable.load(str(tmp_path / name)).network.get_weights() for name in ("single", "seven"))
    for single, joined in zip(one, other):
        np.testing.assert_allclose(single, joined, atol=1e-5)


def test_the_table_holds_what_tensorboard_shows(trained):
    with open(trained[1] / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["loss"]] == [10, 20, 30, 40, 50, 60]
    judged = [row for row in rows if row["psnr"]]
    assert [int(row["step"]) for row in judged] == [30, 60]
    assert float(judged[-1]["covered_psnr"]) == pytest.approx(trained[2]["covered_psnr"])
    assert all(0.0 <= float(row["input_wait_share"]) <= 1.0 for row in rows if row["loss"])


def test_a_run_that_gets_no_better_ends_early(dataset, canvas_path, tmp_path):
    config = _config(dataset, canvas_path, learning_rate=0.0, patience=2, steps=1000, eval_every=5)
    _train(config, tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        judged = [int(row["step"]) for row in csv.DictReader(file) if row["psnr"]]
    # The first is the best; two more bring nothing.
    assert judged == [5, 10, 15] and list((tmp_path / "checkpoints").glob("ckpt-15.index"))
    _train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("ckpt-20.index"))  # nor is it trained further


def test_an_average_of_the_weights_is_what_is_judged_and_exported(dataset, canvas_path, tmp_path):
    config = _config(dataset, canvas_path, ema=0.9, steps=30)
    figures = _train(config, tmp_path)
    validation, loaded = Validation(config), exportable.load(str(tmp_path))
    assert validation.judge(make_restore(loaded.network)(validation.source)) == pytest.approx(figures, abs=0.01)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "checkpoints")))
    kernel = next(
        name for name in reader.get_variable_to_shape_map() if name.startswith("network/") and "kernel" in name
    )
    exported = [weight.numpy() for weight in loaded.network.trainable_variables]
    trained = reader.get_tensor(kernel)
    assert not any(weight.shape == trained.shape and np.array_equal(weight, trained) for weight in exported)


def test_a_trace_of_the_steps_asked_for_is_written(dataset, canvas_path, tmp_path):
    config = _config(dataset, canvas_path, steps=8, steps_per_execution=8)
    loop.train_and_evaluate(config, str(tmp_path), tf.distribute.OneDeviceStrategy("/cpu:0"), False, profile=(3, 5))
    assert list((tmp_path / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("fields, warned", [({"mask_target": False}, True), ({}, False), ({"target": "clean"}, False)])
def test_a_mark_that_covers_most_pixels_is_warned_of_unless_targets_are_clean(
    dataset, tmp_path, caplog, fields, warned
):
    pixels = np.zeros((200, 200, 4), np.uint8)
    pixels[:, ::10] = pixels[:, 1::3] = pixels[:, 2::3] = 128
    Image.fromarray(pixels).save(tmp_path / "dense.png")
    config = _config(dataset, tmp_path / "dense.png", steps=6, **fields)
    _train(config, tmp_path / "run")
    assert ("the median" in caplog.text and "config.target=clean" in caplog.text) == warned


def test_a_damaged_record_ends_the_run_and_names_the_remedy(dataset, canvas_path, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    for shard in (tmp_path / "data").glob("train-*"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 0xFF
        shard.write_bytes(content)
    with pytest.raises(UserError, match="preprocessing.verify"):
        _train(_config(tmp_path / "data", canvas_path), tmp_path / "run")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--workdir"),
        (["--workdir=w", "--config=absent.py"], "absent.py"),
        (["--workdir=w", "--config.data.dir=nowhere", "--config.source=clean"], "nowhere"),
        (["--workdir=w", "--config.no_such_field=1"], "no_such_field"),
        (["--workdir=w", "--virtual_devices=0"], "--virtual_devices=0"),
    ],
)
def test_the_command_says_in_one_line_what_it_cannot_use(arguments, words, tmp_path, request):
    environment = {"PYTHONPATH": str(request.config.rootpath), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    config = (
        []
        if any("--config=" in argument for argument in arguments)
        else [f"--config={request.config.rootpath / 'configs' / 'default.py'}"]
    )
    command = [sys.executable, "-m", "training.train", *config, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "bfloat16" not in line] == [done.stderr.splitlines()[-1]]
    assert not (tmp_path / "w").exists()

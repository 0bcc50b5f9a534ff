"""A run that was killed, stopped or half written goes on as if nothing had been."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from training.data.input_pipeline import training_batches
from training.run import checkpoints, exportable
from training.run.checkpoints import BestWeights, Checkpoints

pytestmark = pytest.mark.slow

_STEPS = 40


def _command(dataset, canvas_path, workdir, *arguments):
    root = str(Path(__file__).parents[3])
    fields = {
        "data.dir": dataset,
        "data.crop": 32,
        "data.shuffle_crops": 64,
        "data.deterministic": True,
        "source": f"watermark:canvas={canvas_path}",
        "model.features": "(6,8)",
        "model.blocks": "(1,1)",
        "batch_size": 4,
        "steps": _STEPS,
        "eval_every": 10,
        "checkpoint_every": 5,
        "log_every": 5,
        "val_crops": 2,
        "val_crop": 32,
        "ema": 0.9,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "training.train", f"--config={root}/configs/default.py", f"--workdir={workdir}"]
    return [*command, *overrides, *arguments]


def _run(command):
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def _signal_once_at(command, workdir, step, number):
    """Starts the command, and sends it a signal when a checkpoint of this step or a later one is there."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            saved = [int(path.stem.split("-")[1]) for path in (workdir / "checkpoints").glob("ckpt-*.index")]
            if saved and max(saved) >= step:
                process.send_signal(number)
                break
            time.sleep(0.01)
        _, said = process.communicate()
    return process.returncode, said


def _state(workdir):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir / "checkpoints")))
    names = [name for name in reader.get_variable_to_shape_map() if "minutes" not in name and "CHECKPOINT" not in name]
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


@pytest.fixture(scope="module")
def uninterrupted(dataset, canvas_path, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    _run(_command(dataset, canvas_path, workdir))
    return workdir


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_ends_with_the_same_weights_to_the_bit(dataset, canvas_path, uninterrupted, tmp_path, number):
    workdir = tmp_path / "run"
    command = _command(dataset, canvas_path, workdir)
    code, said = _signal_once_at(command, workdir, int(np.random.default_rng().integers(5, 30)), number)
    if number == signal.SIGTERM:
        assert code == 0 and "Stopped as asked at step" in said
    else:
        assert code == -signal.SIGKILL
    _run(command)
    expected, found = _state(uninterrupted), _state(workdir)
    assert expected.keys() == found.keys() and len(expected) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    one, other = (exportable.load(str(folder)) for folder in (uninterrupted, workdir))
    assert one.info["step"] == other.info["step"]
    for single, resumed in zip(one.network.get_weights(), other.network.get_weights()):
        np.testing.assert_array_equal(single, resumed)
    with open(workdir / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]
    assert steps == list(range(5, _STEPS + 1, 5))  # nothing twice, nothing lost


def test_a_torn_checkpoint_is_skipped_for_the_one_before_it(dataset, canvas_path, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    command = _command(dataset, canvas_path, workdir)
    _signal_once_at(command, workdir, 15, signal.SIGKILL)
    newest = max((workdir / "checkpoints").glob("ckpt-*.data-*"), key=lambda path: int(path.name.split("-")[1][:-5]))
    os.truncate(newest, newest.stat().st_size // 2)
    done = _run(command)
    assert f"{newest.name.split('.')[0]} cannot be read" in done.stderr and "the one before it is taken" in done.stderr
    for name, value in _state(uninterrupted).items():
        np.testing.assert_array_equal(value, _state(workdir)[name], err_msg=name)


def test_where_no_checkpoint_can_be_read_nothing_is_trained(tmp_path):
    saved = Checkpoints(str(tmp_path), 3, weights=tf.train.Checkpoint(w=tf.Variable(tf.ones([1000]))))
    saved.save(7, 1.5)
    assert Checkpoints(str(tmp_path), 3, weights=tf.train.Checkpoint(w=tf.Variable(tf.zeros([1000])))).restore() == (
        7,
        1.5,
    )
    for path in (tmp_path / "checkpoints").glob("ckpt-*.data-*"):
        os.truncate(path, 10)
    with pytest.raises(UserError, match="none of its 1 checkpoints can be read"):
        saved.restore()


def test_best_weights_that_are_torn_are_named_and_replaced(tmp_path):
    def network(value):
        return tf.train.Checkpoint(w=tf.Variable(tf.fill([1000], value)))

    assert BestWeights(str(tmp_path), network(1.0)).offer(30.0, 10)
    (data,) = (tmp_path / "best").glob("ckpt-*.data-*")
    os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(UserError, match="ckpt-10: cannot be read .*its next validation replaces it"):
        BestWeights(str(tmp_path), network(0.0)).restore()
    resumed = BestWeights(str(tmp_path), network(2.0))
    resumed.recall_figure()
    assert resumed.offer(20.0, 15)
    again = network(0.0)
    assert BestWeights(str(tmp_path), again).restore() and again.w.numpy().max() == 2.0


def test_a_full_disk_is_named_with_the_last_good_checkpoint(tmp_path, monkeypatch):
    saved = Checkpoints(str(tmp_path), 3, weights=tf.train.Checkpoint(w=tf.Variable([1.0])))
    saved.save(7, 0.0)

    def full(*unused, **fields):
        raise tf.errors.ResourceExhaustedError(None, None, "x.data-00000-of-00001; No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", full)
    with pytest.raises(UserError, match="step 8: .*No space left on device.*ckpt-7; free some space"):
        saved.save(8, 0.0)
    monkeypatch.undo()
    assert checkpoints.Checkpoints(str(tmp_path), 3, weights=tf.train.Checkpoint(w=tf.Variable([0.0]))).restore() == (
        7,
        0.0,
    )


@pytest.mark.parametrize("first_step", [1, 3, 16, 17, 50, 200])
def test_deterministic_batches_can_be_entered_at_any_step(dataset, first_step):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 32, 64
    config.data.deterministic, config.batch_size = True, 4
    # 11 photographs, 64 crops a block, 16 steps: several blocks, several epochs.
    whole = training_batches(config).skip(first_step).take(3).as_numpy_iterator()
    for one, other in zip(whole, training_batches(config, first_step).take(3).as_numpy_iterator()):
        np.testing.assert_array_equal(one, other)


def test_deterministic_crops_are_shuffled_and_all_pictures_come_up(dataset):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 32, 64
    config.data.deterministic, config.batch_size = True, 64
    one, two = (batch.reshape(64, -1) for batch in training_batches(config).take(2).as_numpy_iterator())
    assert len(np.unique(one, axis=0)) > 50 and not np.array_equal(one, two)
    # Four crops of one window lie side by side before they are shuffled: neighbours are no more alike than others.
    means = one.mean(1)
    near, far = np.abs(np.diff(means)).mean(), np.abs(means - np.roll(means, 17)).mean()
    assert near > 0.6 * far

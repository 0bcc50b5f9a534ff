"""Several workers train one network: they end together, and one that is killed rejoins."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster

_ROOT = Path(__file__).parents[3]
_STEPS = 160


def _command(module, dataset, canvas_path, workdir, *arguments):
    fields = {
        "data.dir": dataset,
        "data.crop": 32,
        "data.shuffle_crops": 64,
        "source": f"watermark:canvas={canvas_path}",
        "model.name": "unet",
        "model.features": "(6,8)",
        "model.blocks": "(1,1)",
        "batch_size": 4,
        "steps": _STEPS,
        "eval_every": 80,
        "checkpoint_every": 20,
        "log_every": 20,
        "val_crops": 2,
        "val_crop": 32,
        "patience": 5,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    flags = [f"--config={_ROOT}/configs/default.py", f"--workdir={workdir}", *overrides, *arguments]
    launcher = ["--workers=2", "--"] if module == "training.local_workers" else ["--strategy=multi_worker"]
    return [sys.executable, "-m", module, *launcher, *flags]


def _wait_for_checkpoint(workdir, step, process):
    while process.poll() is None:
        if any(int(path.stem.split("-")[1]) >= step for path in (workdir / "checkpoints").glob("ckpt-*.index")):
            return
        time.sleep(0.01)


def _logged_steps(workdir):
    with open(workdir / "metrics.csv", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_rejoins_and_the_job_ends(dataset, canvas_path, tmp_path, victim):
    workdir = tmp_path / "run"
    command = _command("training.local_workers", dataset, canvas_path, workdir)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for_checkpoint(workdir, 40, launcher)
        workers = sorted(psutil.Process(launcher.pid).children(), key=lambda child: child.pid)
        workers[victim].send_signal(signal.SIGKILL)
        _, said = launcher.communicate()
    assert launcher.returncode == 0, said[-2000:]
    assert f"worker {victim} was lost (signal 9); it is started again" in said
    assert "a worker was lost" in said  # the other one's word
    assert _logged_steps(workdir) == list(range(20, _STEPS + 1, 20))


def test_workers_that_are_asked_to_stop_save_and_end_together(dataset, canvas_path, tmp_path):
    workdir = tmp_path / "run"
    command = _command("training.local_workers", dataset, canvas_path, workdir, "--config.steps=100000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for_checkpoint(workdir, 20, launcher)
        launcher.send_signal(signal.SIGTERM)
        _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, said[-2000:]
    assert said.count("Stopped as asked at step") == 2


def test_one_worker_that_is_asked_to_stop_leaves_no_unfinished_job_for_finished(dataset, canvas_path, tmp_path):
    workdir = tmp_path / "run"
    command = _command("training.local_workers", dataset, canvas_path, workdir)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        _wait_for_checkpoint(workdir, 40, launcher)
        workers = sorted(psutil.Process(launcher.pid).children(), key=lambda child: child.pid)
        workers[1].send_signal(signal.SIGTERM)  # as when a node is drained
        _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said[-2000:]
    assert said.count("Stopped as asked at step") == 2 and "was lost" not in said
    assert _logged_steps(workdir) == list(range(20, _STEPS + 1, 20))


def test_a_workers_own_error_ends_the_job(dataset, canvas_path, tmp_path):
    command = _command("training.local_workers", dataset, canvas_path, tmp_path / "run", "--config.batch_size=5")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "cannot be spread evenly over 2 replicas" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("tf_config", "words"),
    [
        (None, "does not describe a worker"),
        ("{", "does not describe a worker"),
        ('{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 1}}', "does not describe"),
    ],
)
def test_a_missing_or_wrong_tf_config_is_one_line(dataset, canvas_path, tmp_path, tf_config, words):
    environment = {**os.environ, **({"TF_CONFIG": tf_config} if tf_config else {})}
    command = _command("training.train", dataset, canvas_path, tmp_path / "run")
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and words in done.stderr and "training.local_workers" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()

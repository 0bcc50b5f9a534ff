"""The demo's whole path, with less training than a user's: every stage is the real command."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED

_FIGURES = {"covered_psnr_in", "covered_psnr_out", "psnr_in", "psnr_out", "uncovered_psnr_out"}


def _demo(out, *arguments):
    command = [sys.executable, "-m", "examples.demo", f"--out={out}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo's folder, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = _demo(out, "--minutes=0.4")
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done


def test_the_demo_ends_with_a_picture_figures_and_one_line(demo):
    out, done = demo
    summary = json.loads((out / "summary.json").read_text())
    assert _FIGURES | {"canvas", "export_dir", "images", "seconds_by_stage"} <= summary.keys()
    assert summary["covered_psnr_out"] > summary["covered_psnr_in"]
    last = done.stdout.strip().splitlines()[-1]
    assert f"{summary['covered_psnr_out']:.2f} dB" in last and "Noise2Noise" in last
    sheet = np.asarray(Image.open(out / "before_after.png"))
    assert sheet.shape[0] > 900 and sheet.shape[1] > 700 and sheet.std() > 20


def test_the_figures_are_those_of_the_pictures_on_disk(demo):
    out, _ = demo
    summary = json.loads((out / "summary.json").read_text())
    changed = [
        not np.array_equal(Image.open(out / "overlaid" / path.name), Image.open(path))
        for path in sorted((out / "restored").iterdir())
    ]
    assert len(changed) == summary["images"] and all(changed)


def test_the_terminal_stays_readable(demo):
    _, done = demo
    for noise in ("cuda", "cuDNN", "TensorRT", "oneDNN", "TFA", "Traceback", "WARNING", "deprecat"):
        assert noise not in done.stderr + done.stdout, noise


def test_the_saved_model_needs_tensorflow_alone(demo):
    out, _ = demo
    script = f"""
import sys, tensorflow as tf
restore = tf.saved_model.load({str(out / "export" / "1")!r}).signatures["restore"]
print(restore(images=tf.zeros([1, 33, 47, 3], tf.uint8))["restored"].shape)
assert not {{"training", "serving", "configs", "preprocessing"}} & sys.modules.keys()
"""
    # -I keeps the checkout off the path.
    done = subprocess.run([sys.executable, "-I", "-c", script], check=False, capture_output=True, text=True, cwd="/")
    assert "(1, 33, 47, 3)" in done.stdout, done.stderr[-2000:]


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = _demo(tmp_path)
    assert done.returncode == 1 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_coco_folder_that_is_not_there_is_named(tmp_path):
    done = _demo(tmp_path / "out", "--coco=nowhere")
    assert done.returncode == 1 and done.stderr.startswith("error: COCO=nowhere") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared COCO subset is not beside this checkout")
def test_the_demo_takes_a_real_coco_folder(tmp_path):
    done = _demo(tmp_path / "demo", f"--coco={SHARED / 'data' / 'coco'}", "--minutes=0.1")
    assert done.returncode == 0, done.stderr[-2000:]
    info = json.loads((tmp_path / "demo" / "tfrecords" / "dataset_info.json").read_text())
    assert sum(split["images"] for split in info["splits"].values()) == 294

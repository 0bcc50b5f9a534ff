"""The demo's whole path, with less training than a user's: every stage is the real command."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.command_line import UserError
from examples.demo import require
from tests.conftest import SHARED

pytestmark = pytest.mark.slow

_FIGURES = {"covered_psnr_in", "covered_psnr_out", "psnr_in", "psnr_out", "uncovered_psnr_out"}


def _demo(out, *arguments):
    command = [sys.executable, "-m", "examples.demo", f"--out={out}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo's folder, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = _demo(out, "--minutes=0.4")
    assert (out / "summary.json").exists(), done.stderr[-2000:]
    return out, done


def _psnr(folder, out, where):
    """Mean over the crops of their PSNR where a mask says, by NumPy, from the pictures on disk."""
    clean = np.load(out / "train" / "validation.npz")["clean"]
    figures = []
    for path, true, counts in zip(sorted((out / folder).glob("*.png")), clean, where):
        error = np.square(np.asarray(Image.open(path), np.float64) - true)[counts].mean()
        figures.append(min(68.0, 10 * np.log10(255**2 / error)) if error else 68.0)
    return np.mean(figures)


def test_the_figures_are_those_of_the_pictures_on_disk(demo):
    out, done = demo
    summary = json.loads((out / "summary.json").read_text())
    assert _FIGURES | {"canvas", "export_dir", "images", "seconds_by_stage"} <= summary.keys()
    covered = np.load(out / "train" / "validation.npz")["covered"]
    assert len(list((out / "restored").glob("*.png"))) == summary["images"] == len(covered)
    for folder, where, figure in [
        ("marked", covered, "covered_psnr_in"),
        ("restored", covered, "covered_psnr_out"),
        ("restored", ~covered, "uncovered_psnr_out"),
        ("pretrained", covered, "pretrained_covered_psnr_out"),
        ("known", covered, "known_covered_psnr_out"),
    ]:
        assert _psnr(folder, out, where) == pytest.approx(summary[figure], abs=0.02), figure
    assert summary["covered_psnr_out"] > summary["covered_psnr_in"]
    assert summary["known_covered_psnr_out"] > summary["covered_psnr_in"] + 20
    assert f"{summary['covered_psnr_out']:.2f} dB" in done.stdout.strip().splitlines()[-1]


def test_the_demo_judges_itself(demo):
    out, done = demo
    summary = json.loads((out / "summary.json").read_text())
    gain = summary["covered_psnr_out"] - summary["covered_psnr_in"]
    has_worked = gain >= 6 and summary["uncovered_psnr_out"] >= 38
    assert done.returncode == (0 if has_worked else 1), done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert has_worked or (last.startswith("error: ") and f"{gain:.2f} dB" in last and "--minutes" in last)


@pytest.mark.parametrize(
    ("covered", "uncovered", "is_good"), [(19.1, 38.1, True), (18.9, 50.0, False), (26.0, 37.9, False)]
)
def test_marks_that_are_left_or_harm_elsewhere_are_an_error(covered, uncovered, is_good):
    summary = {"covered_psnr_in": 13.0, "covered_psnr_out": covered, "uncovered_psnr_out": uncovered}
    if is_good:
        require(summary)
        return
    with pytest.raises(UserError, match="did not restore"):
        require(summary)


def test_the_sheet_has_a_column_for_each_way(demo):
    out, _ = demo
    sheet = np.asarray(Image.open(out / "before_after.png").convert("RGB")).astype(int)
    side, margin = 256, 8
    assert sheet.shape[1] == 5 * (side + margin) + margin and sheet.shape[0] > 4 * side
    # The last row's images are those on disk.
    bottom = sheet.shape[0] - margin
    clean = np.load(out / "train" / "validation.npz")["clean"]
    found = [sheet[bottom - side : bottom, margin + k * (side + margin) :][:, :side] for k in range(5)]
    k = min(range(len(clean)), key=lambda k: np.abs(clean[k] - found[-1]).sum())
    for column, folder in zip(found, ("marked", "pretrained", "restored", "known")):
        np.testing.assert_array_equal(column, np.asarray(Image.open(out / folder / f"{k:03d}.png").convert("RGB")))
    np.testing.assert_array_equal(found[-1], clean[k])


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
assert not {{"training", "serving", "common", "configs", "preprocessing"}} & sys.modules.keys()
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
    assert "Traceback" not in done.stderr and (tmp_path / "demo" / "summary.json").exists(), done.stderr[-2000:]
    info = json.loads((tmp_path / "demo" / "tfrecords" / "dataset_info.json").read_text())
    assert sum(split["images"] for split in info["splits"].values()) == 294

"""The evaluation measures what a model does to overlaid pictures, and writes a report that adds up."""

import csv
import json
import math
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.command_line import UserError
from configs import default
from training import corruption, models
from training.evaluate import evaluate
from training.evaluation import gallery, histogram, model
from training.run import exportable

pytestmark = pytest.mark.slow

NOISE = "gaussian:stddev=20..40"


class Blur(tf.Module):
    """A model that takes the mean of 3 x 3 pixels, the picture continued by zeros."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def restore(self, images):
        kernel = tf.eye(3)[None, None] * tf.ones([3, 3, 1, 1]) / 9
        return {"restored": tf.cast(tf.round(tf.nn.conv2d(tf.cast(images, tf.float32), kernel, 1, "SAME")), tf.uint8)}


def save(module, folder, name="restore"):
    tf.saved_model.save(module, str(folder), signatures={name: module.restore})
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An export with two versions, of which the older one cannot be loaded."""
    folder = tmp_path_factory.mktemp("export")
    save(Blur(), folder / "10")
    (folder / "10" / "export_info.json").write_text('{"step": 1234, "validation_psnr": 31.5}')
    (folder / "9").mkdir()
    (folder / "9" / "saved_model.pb").write_text("not one")
    return folder


@pytest.fixture(scope="module")
def some(photos, tmp_path_factory):
    """Five photographs in two folders, one that is too small for SSIM, and a text."""
    folder = tmp_path_factory.mktemp("some")
    (folder / "deep").mkdir()
    for name in ("astronaut", "brick", "coffee", "chelsea"):
        shutil.copy(photos / "images" / f"{name}.jpg", folder)
    shutil.copy(photos / "images" / "rocket.jpg", folder / "deep")
    Image.open(photos / "images" / "coffee.jpg").resize((9, 30)).save(folder / "tiny.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def read_table(folder):
    with open(folder / "pictures.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(export, some, canvas_path, tmp_path_factory):
    """Arguments, folder, rows and summary of an evaluation."""
    out = tmp_path_factory.mktemp("reports") / "report"
    spec = f"watermark:canvas={canvas_path},opacity=0.7..1"
    evaluate(str(export), str(some), [spec, NOISE], str(out), side=96, seed=5, shown=2)
    return spec, out, read_table(out), json.loads((out / "summary.json").read_text())


def test_a_row_holds_what_an_independent_computation_finds(report, some):
    spec, _, rows, _ = report
    row = next(row for row in rows if row["picture"] == "coffee.jpg" and row["spec"] == spec)
    picture = np.asarray(Image.open(some / "coffee.jpg"))
    top, left = (picture.shape[0] - 96) // 2, (picture.shape[1] - 96) // 2
    clean = picture[top : top + 96, left : left + 96]
    seeds = tf.constant([[5, int(row["number"])]], tf.int32)
    corrupted, alpha = corruption.build(spec)(tf.constant(clean[None] / 255.0, tf.float32), seeds)
    corrupted = np.round(corrupted[0].numpy() * 255).astype(np.uint8)
    covered = alpha[0, ..., 0].numpy() > corruption.COVERED
    restored = uniform_filter(corrupted.astype(np.float64), (3, 3, 0), mode="constant")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    for stage, result in (("in", corrupted), ("out", np.round(restored).astype(np.uint8))):
        local = structural_similarity(clean, result, channel_axis=2, full=True, **options)[1].mean(axis=2)
        inner = (slice(5, -5), slice(5, -5))
        expected = {
            "psnr": peak_signal_noise_ratio(clean, result),
            "covered_psnr": peak_signal_noise_ratio(clean[covered], result[covered]),
            "uncovered_psnr": min(68.13, peak_signal_noise_ratio(clean[~covered], result[~covered])),
            "ssim": local[inner].mean(),
            "covered_ssim": local[inner][covered[inner]].mean(),
        }
        for name, value in expected.items():
            # A rounding of x.5 may go either way; that is 0.01 dB at most here.
            assert float(row[f"{name}_{stage}"]) == pytest.approx(value, abs=0.01 if "psnr" in name else 3e-4), name
    assert float(row["covered_share"]) == pytest.approx(covered.mean(), abs=1e-5)


def test_every_picture_has_a_row_for_each_spec(report):
    spec, _, rows, summary = report
    names = ["astronaut.jpg", "brick.jpg", "chelsea.jpg", "coffee.jpg", "deep/rocket.jpg", "tiny.png"]
    assert [(int(row["number"]), row["picture"], row["spec"]) for row in rows] == [
        (number, name, one) for number, name in enumerate(names) for one in (spec, NOISE)
    ]
    assert summary["pictures"] == {"found": 6, "evaluated": 6, "failed": []}
    assert summary["model"]["path"].endswith("/10") and summary["model"]["step"] == 1234
    assert summary["arguments"]["spec"] == [spec, NOISE] and summary["arguments"]["side"] == 96


def test_the_summary_is_the_mean_and_median_of_the_table(report):
    _, _, rows, summary = report
    figures = [name for name in rows[0] if name.endswith(("_in", "_out", "_gain", "_share"))]
    assert len(figures) == 16
    for part in summary["specs"]:
        mine = [row for row in rows if row["spec"] == part["spec"]]
        for name in figures:
            values = [float(row[name]) for row in mine if row[name]]
            found = part["figures"][name]
            assert found["pictures"] == len(values)
            if values:
                assert found["mean"] == pytest.approx(statistics.mean(values), abs=1e-5)
                assert found["median"] == pytest.approx(statistics.median(values), abs=1e-5)
            else:
                assert found["mean"] is None and found["median"] is None
    for row in rows:
        for name in ("psnr", "covered_psnr", "uncovered_psnr", "ssim", "covered_ssim"):
            if row[f"{name}_gain"]:
                gain = float(row[f"{name}_out"]) - float(row[f"{name}_in"])
                assert float(row[f"{name}_gain"]) == pytest.approx(gain, abs=2e-3)


def test_what_is_not_defined_is_empty(report):
    _, _, rows, _ = report
    marked, noisy = rows[-2:]
    assert (marked["picture"], marked["width"], marked["height"]) == ("tiny.png", "9", "30")
    assert marked["ssim_in"] == marked["covered_ssim_out"] == "" and marked["psnr_out"]
    assert noisy["covered_psnr_in"] == noisy["covered_psnr_gain"] == "" and noisy["covered_share"] == "0.0"


def test_whole_pictures_and_one_file_can_be_evaluated(export, some, tmp_path):
    summary = evaluate(str(export / "10"), str(some / "brick.jpg"), ["clean"], str(tmp_path / "r"), side=0, shown=0)
    (row,) = read_table(tmp_path / "r")
    assert (row["picture"], row["width"], row["height"]) == ("brick.jpg", "512", "512")
    assert float(row["psnr_in"]) == pytest.approx(68.131, abs=1e-3)
    assert "covers nothing" in summary["lines"][0]


def test_a_photo_is_turned_upright(export, astronaut, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(astronaut[:40, :100]).save(tmp_path / "turned.png", exif=exif)
    evaluate(str(export), str(tmp_path / "turned.png"), ["clean"], str(tmp_path / "r"))
    (row,) = read_table(tmp_path / "r")
    assert (row["width"], row["height"]) == ("40", "100")


def test_a_workdir_is_evaluated_with_its_best_weights_at_any_size(astronaut, some, tmp_path):
    config = default.get_config()
    config.model.features, config.model.blocks = (8, 8), (1, 1)
    network = models.build(config).network
    # A fresh network is the identity; a bias in its last layer makes it do something.
    network.set_weights([weight + 0.02 for weight in network.get_weights()])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    exportable.BestWeights(str(tmp_path / "run"), network).offer(20.0, 77)

    trained = model.load(str(tmp_path / "run"))
    stride = exportable.load(str(tmp_path / "run")).stride
    for height, width in ((1, 1), (5, 7), (33, 64)):
        picture = astronaut[100 : 100 + height, 100 : 100 + width]
        padding = [(0, -height % stride), (0, -width % stride), (0, 0)]
        padded = np.pad(picture, padding, "reflect" if min(height, width) > 1 else "edge")
        expected = np.clip(network(padded[None] / np.float32(255), training=False)[0, :height, :width], 0, 1) * 255
        restored = trained.restore(picture[None])
        assert restored.shape == (1, height, width, 3) and restored.dtype == np.uint8
        assert np.abs(restored[0] - expected).max() <= 0.51
    evaluate(str(tmp_path / "run"), str(some), ["clean"], str(tmp_path / "r"), side=50)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["model"]["step"] == 77 and summary["model"]["validation_psnr"] == 20.0


def test_a_picture_that_does_not_decode_is_named_and_the_others_go_on(export, some, tmp_path):
    shutil.copytree(some, tmp_path / "photos")
    whole = (some / "brick.jpg").read_bytes()
    (tmp_path / "photos" / "brick.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "empty.png").touch()
    command = [sys.executable, "-m", "training.evaluate", f"--model={export}", "--side=32", "--spec=clean"]
    command += [f"--images={tmp_path / 'photos'}", f"--out={tmp_path / 'new' / 'report'}"]
    done = subprocess.run([*command, f"--spec={NOISE}"], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" brick.jpg", " empty.png"]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "new" / "report" / "index.html")
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == ["clean", "gaussian"]
    summary = json.loads((tmp_path / "new" / "report" / "summary.json").read_text())
    assert [one["picture"] for one in summary["pictures"]["failed"]] == ["brick.jpg", "empty.png"]
    assert summary["pictures"]["evaluated"] == 5 and len(read_table(tmp_path / "new" / "report")) == 10
    page = (tmp_path / "new" / "report" / "index.html").read_text()
    assert "brick.jpg" in page and summary["pictures"]["failed"][0]["reason"] in page

    again = subprocess.run([*command, "--overwrite"], check=False, capture_output=True, text=True)
    assert again.returncode == 1 and len(read_table(tmp_path / "new" / "report")) == 5
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report"]


@pytest.mark.parametrize(
    "given, word", [(["--model=m", "--images=i"], "--spec"), (["x"], "'x'"), (["--side=-1"], "side")]
)
def test_a_command_line_that_lacks_something_is_told_so_in_a_line(given, word):
    command = [sys.executable, "-m", "training.evaluate", *given]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and word in done.stderr and done.stderr.count("\n") == 1


def test_what_cannot_be_evaluated_is_named_and_leaves_nothing(export, some, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no picture")
    save(Blur(), tmp_path / "other", "serving_default")
    before = sorted(tmp_path.iterdir())
    good = {"model_path": str(export), "images": str(some), "specs": ["clean"], "out": "report"}
    for wrong, words in [
        ({"model_path": "nowhere"}, "nowhere: no such folder"),
        ({"model_path": "none"}, "neither an export .* nor a training workdir"),
        ({"model_path": str(export / "9")}, "9 cannot be loaded"),
        ({"model_path": "other"}, "no signature restore"),
        ({"images": "nowhere"}, "nowhere: no such file"),
        ({"images": "none"}, "holds no pictures"),
        ({"images": "bad"}, "no picture could be evaluated.*cannot identify"),
        ({"specs": ["clear"]}, "'clear'"),
        ({"specs": ["clean", "clean"]}, "given twice"),
        ({"out": "none"}, "none: exists"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            evaluate(**{**good, **wrong})
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.iterdir()) == before


def test_only_a_report_is_overwritten(export, some, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not a report"):
        evaluate(str(export), str(some), ["clean"], str(tmp_path / "thesis"), overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_an_interrupted_evaluation_leaves_the_old_report(export, some, tmp_path, monkeypatch):
    evaluate(str(export), str(some), ["clean"], str(tmp_path / "r"), side=16)
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    monkeypatch.setattr("training.evaluation.page.render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(str(export), str(some), [NOISE], str(tmp_path / "r"), side=16, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("number, worst, best", [(1, 1, 0), (4, 2, 2), (5, 3, 2), (40, 3, 3)])
def test_the_gallery_keeps_the_extremes_of_any_number(number, worst, best):
    gains = np.random.default_rng(number).permutation(number) - 10.0
    kept, picture = gallery.Gallery(3), np.zeros((4, 4, 3), np.uint8)
    for gain in gains:
        kept.offer({"psnr_gain": 0.0, "covered_psnr_gain": float(gain)}, picture, picture)
    ordered = sorted(gains)
    assert [one.row["covered_psnr_gain"] for one in kept.worst] == ordered[:worst]
    assert [one.row["covered_psnr_gain"] for one in kept.best] == ordered[::-1][:best]


def test_the_gallery_ranks_by_covered_pixels_as_soon_as_there_are_any():
    kept, picture = gallery.Gallery(3), np.zeros((4, 4, 3), np.uint8)
    for covered in (None, 4.0, None, 2.0):
        kept.offer({"psnr_gain": 9.0, "covered_psnr_gain": covered}, picture, picture)
    assert kept.measure == "covered_psnr"
    assert [one.row["covered_psnr_gain"] for one in kept.worst + kept.best] == [2.0, 4.0]


def test_the_histogram_counts_every_gain_once_in_bins_that_begin_at_zero():
    gains = np.random.default_rng(0).normal(3, 5, 500).round(3).tolist()
    width = histogram.bin_width(gains)
    counts = histogram.count(gains, width)
    low = min(counts)
    edges = (np.arange(low, max(counts) + 2)) * width
    expected, _ = np.histogram(gains, edges)
    assert [counts.get(low + k, 0) for k in range(len(expected))] == expected.tolist()
    assert histogram.count([-0.1, 0.0, 0.3, 0.299], 0.1) == {-1: 1, 0: 1, 3: 1, 2: 1}
    assert "500 pictures" in histogram.histogram(gains, "gains")
    assert math.isclose(histogram.bin_width([0.0]), 0.1)

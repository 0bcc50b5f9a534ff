"""An audit marks pictures, attacks the copies, and says what anyone can compute again."""

import base64
import csv
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio

from common.command_line import UserError
from serving.audit import audit
from serving.auditing import attacks, defences, estimation, grades, verdict
from tests.marks import CANVASES, lay

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
EVIL = "<b>&$title.png"


class Blur(tf.Module):
    """A blind model that takes the mean of 3 x 3 pixels, the picture continued by zeros."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def restore(self, images):
        kernel = tf.eye(3)[None, None] * tf.ones([3, 3, 1, 1]) / 9
        return {"restored": tf.cast(tf.round(tf.nn.conv2d(tf.cast(images, tf.float32), kernel, 1, "SAME")), tf.uint8)}


@pytest.fixture(scope="module")
def mark():
    """A stamp without a border."""
    stamp = CANVASES["one stamp"]
    return stamp.crop(stamp.getchannel("A").getbbox())


@pytest.fixture(scope="module")
def canvas(mark, tmp_path_factory):
    """The stamp in a corner of a larger canvas."""
    path = tmp_path_factory.mktemp("canvas") / "mark.png"
    larger = Image.new("RGBA", (900, 700))
    larger.paste(mark, (600, 640))
    larger.save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("blur") / "1"
    blur = Blur()
    tf.saved_model.save(blur, str(path), signatures={"restore": blur.restore})
    return path


@pytest.fixture(scope="module")
def images(astronaut, crops, tmp_path_factory):
    """Three photographs, of which one has an odd size and one a name that is markup."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(astronaut).save(folder / "a.png")
    Image.fromarray(crops[3][:201, :190]).save(folder / "odd.png")
    Image.fromarray(crops[5]).save(folder / EVIL)
    return folder


@pytest.fixture(scope="module")
def report(canvas, images, model, tmp_path_factory):
    """Folder, rows and summary of an audit."""
    out = tmp_path_factory.mktemp("reports") / "report"
    options = {"defences": ["warp"], "attacks": ["blind", "keyed", "estimated-20"], "shown": 1, "limit": 3}
    audit(str(canvas), str(images), str(out), model_path=str(model), repair="", **options)
    with open(out / "pictures.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return out, rows, json.loads((out / "summary.json").read_text())


def _row(rows, **wanted):
    (found,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return found


def _middle(mark, height, width):
    return (height - mark.height) // 2, (width - mark.width) // 2


def _saved(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("name", ["a.png", "odd.png"])
def test_rows_hold_what_an_independent_computation_finds(report, images, mark, name):
    clean = np.asarray(Image.open(images / name))
    if name == "a.png":
        clean = clean[128:384, 128:384]
    copy, covered = lay(clean, np.asarray(mark), _middle(mark, *clean.shape[:2]), 1.0)
    for encoding, marked in (("lossless", copy), ("jpeg-90", _saved(copy, 90))):
        blurred = np.round(uniform_filter(marked.astype(np.float64), (3, 3, 0), mode="constant")).astype(np.uint8)
        for attack, result in (("untouched", marked), ("blind", blurred)):
            row = _row(report[1], picture=name, defence="plain", encoding=encoding, attack=attack)
            for figure, one, other in (
                ("covered_psnr_in", marked[covered], clean[covered]),
                ("covered_psnr_out", result[covered], clean[covered]),
                ("psnr_out", result, clean),
            ):
                assert float(row[figure]) == pytest.approx(peak_signal_noise_ratio(other, one), abs=0.05), figure
            gain = float(row["covered_psnr_out"]) - float(row["covered_psnr_in"])
            assert float(row["covered_psnr_gain"]) == pytest.approx(gain, abs=2e-3)
            assert float(row["covered_share"]) == pytest.approx(covered.mean(), abs=1e-3)


def test_the_keyed_attack_takes_the_mark_off_and_leaves_the_rest_alone(report):
    for name in ("a.png", "odd.png"):
        row = _row(report[1], picture=name, defence="plain", encoding="lossless", attack="keyed")
        assert row["located"] == "1" and float(row["covered_psnr_out"]) > 40
        assert row["uncovered_psnr_out"] == row["uncovered_psnr_in"]
    assert {row["located"] for row in report[1] if row["attack"] != "keyed"} == {""}


def test_a_mark_laid_twice_is_what_laying_it_twice_gives(mark, astronaut, tmp_path):
    clean, rgba = astronaut[128:384, 128:384], np.asarray(mark)
    corner = _middle(mark, 256, 256)
    twice, _ = lay(lay(clean, rgba, corner, 1.0)[0], rgba, corner, 1.0)
    (defence,) = [defence for defence in defences.HARDENED if defence.name == "twice"]
    copy, _ = defences.Marker(defence, rgba, tmp_path).lay(clean, (0, 0))
    assert np.abs(copy.astype(int) - twice).max() <= 2  # of 8-bit opacities


def test_what_hardening_costs_is_measured_against_the_plain_mark(report):
    plain, warped = (one["visibility"] for one in report[2]["defences"])
    assert plain["covered_psnr_change"] is None
    for seen, name in ((plain, "plain"), (warped, "warp")):
        mine = [row for row in report[1] if (row["defence"], row["attack"]) == (name, "untouched")]
        values = [float(row["covered_psnr_in"]) for row in mine if row["encoding"] == "lossless"]
        assert seen["covered_psnr"] == pytest.approx(statistics.mean(values), abs=1e-4)
    change = warped["covered_psnr"] - plain["covered_psnr"]
    assert warped["covered_psnr_change"] == pytest.approx(change, abs=1e-4) and change != 0


@pytest.mark.parametrize("defence", defences.HARDENED, ids=lambda defence: defence.name)
def test_a_hardened_copy_differs_from_the_plain_one_where_the_mark_may_be(defence, mark, astronaut, tmp_path):
    clean, rgba = astronaut[100:356, 60:316], np.asarray(mark)
    plain, _ = defences.Marker(defences.PLAIN, rgba, tmp_path).lay(clean, (0, 7))
    marker = defences.Marker(defence, rgba, tmp_path)
    first, here = marker.lay(clean, (0, 7))
    assert (first != plain).any()
    np.testing.assert_allclose(first[~here].astype(int), clean[~here], atol=6)
    again, _ = marker.lay(clean, (0, 7))
    np.testing.assert_array_equal(again, first)
    other, _ = marker.lay(clean, (0, 8))
    assert (other != first).any() == (defence.name != "twice")  # the one that is the same for all pictures


def test_moved_marks_are_whole_and_the_opacity_never_grows(mark, astronaut, tmp_path):
    clean, rgba = astronaut[:512, :512], np.asarray(mark)
    moved = {defence.name: defence for defence in defences.HARDENED}["moved"]
    _, middle = defences.Marker(defences.PLAIN, rgba, tmp_path).lay(clean, (0, 0))
    for number in range(3):
        _, covered = defences.Marker(moved, rgba, tmp_path).lay(clean, (0, number))
        assert covered.sum() == middle.sum() and (covered != middle).any()
    np.testing.assert_array_equal(moved.canvas(rgba), rgba)


@pytest.mark.parametrize("size", [(256, 256), (40, 300), (31, 33)])
def test_a_canvas_is_laid_as_pillow_would(mark, size):
    height, width = size
    ground = Image.new("RGBA", (width, height))
    ground.paste(mark, tuple(_middle(mark, height, width)[::-1]))
    np.testing.assert_array_equal(defences.in_the_middle(np.asarray(mark), height, width), np.asarray(ground))


def test_grades_follow_from_the_table_by_the_published_rule(report):
    _, rows, summary = report
    for defence in summary["defences"]:
        letters = []
        for result in defence["results"]:
            names = {"defence": defence["defence"], "attack": result["attack"], "encoding": result["encoding"]}
            mine = [row for row in rows if names.items() <= row.items()]
            assert len(mine) == result["pictures"] == 3
            psnr, ssim = (statistics.mean(float(row[f"covered_{m}_out"]) for row in mine) for m in ("psnr", "ssim"))
            reached = [
                one["grade"] for one in summary["rule"] if psnr >= one["covered_psnr"] and ssim >= one["covered_ssim"]
            ]
            letters.append(max(reached, default="A"))
            assert result["grade"] == letters[-1], names
            if result["located"] is not None:
                assert result["located"] == sum(int(row["located"]) for row in mine)
        assert len(letters) == 2 * 3
        assert defence["grade"] == max(letters)
    assert summary["grade"] == summary["defences"][0]["grade"]
    assert [one["defence"] for one in summary["defences"]] == ["plain", "warp"]


@pytest.mark.parametrize(
    "psnr, ssim, letter",
    [(12, 0.99, "A"), (60, 0.1, "A"), (20, 0.65, "B"), (33, 0.93, "D"), (39.9, 0.99, "E"), (40, 0.98, "F")],
)
def test_both_figures_must_be_reached(psnr, ssim, letter):
    assert grades.grade(psnr, ssim) == letter
    assert grades.grade(None, None) is None


def test_a_mark_that_is_hardly_visible_has_no_good_grade():
    def result(name, psnr, ssim):
        figures = {"covered_psnr_out": {"mean": psnr}}
        return {"attack": name, "grade": grades.grade(psnr, ssim), "figures": figures}

    best = verdict.strongest([result("untouched", 38, 0.99), result("blind", 31, 0.9), result("keyed", 37, 0.99)])
    assert best["attack"] == "untouched" and best["grade"] == "E"
    assert verdict.strongest([{"attack": "blind", "grade": None}]) is None


def test_what_there_are_too_few_pictures_for_is_named(report):
    out, _, summary = report
    assert summary["left_out"] == [
        {"attack": "estimated-20", "reason": "needs 20 pictures, and 3 can be read"},
    ]
    assert summary["pictures"] == {"found": 3, "read": 3, "restored": 3, "failed": []}
    assert "estimated-20: needs 20 pictures" in (out / "index.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "pictures.csv", "summary.json"]


def test_the_page_is_one_file_and_names_are_text(report):
    html = (report[0] / "index.html").read_text()
    assert not re.findall(r"https?:|//[a-z]+\.", re.sub(r"base64,[\w+/=]+", "", html))
    assert "@import" not in html and not re.search(r"url\(|<link|<iframe", html)
    assert "default-src 'none'" in html
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) == 2 * 2 * 2  # two ways of laying it, the worst and the best picture, before and after
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,")))).load()
    assert EVIL not in html and "<b>&$" not in html
    for defence in report[2]["defences"]:
        assert f"{defence['defence']}: grade {defence['grade']}" in html


@pytest.fixture(scope="module")
def small_mark():
    """A caption of 46 x 110 at most."""
    from preprocessing.marks import draw

    return draw.text_stamp("Mine", size=30, outline=0, opacity=0.6)


@pytest.fixture(scope="module")
def many(photos, tmp_path_factory):
    """Parts of photographs, 160 x 160."""
    folder, number = tmp_path_factory.mktemp("many"), 0
    for name in ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "retina"):
        picture = np.asarray(Image.open(photos / "images" / f"{name}.jpg").convert("RGB"))
        for top in range(0, min(picture.shape[0], 480) - 159, 160):
            for left in range(0, min(picture.shape[1], 480) - 159, 160):
                Image.fromarray(picture[top : top + 160, left : left + 160]).save(folder / f"{number:02d}.png")
                number += 1
    return folder


def test_a_mark_is_estimated_from_copies_and_taken_off_with_the_estimate(small_mark, many, tmp_path, monkeypatch):
    small_mark.save(tmp_path / "mark.png")
    estimate, calls = estimation.estimate, []

    def lossless_only(copies):  # another estimate takes as long again
        calls.append(len(copies))
        if len(calls) > 1:
            raise estimation.NotEstimated("spared")
        return estimate(copies)

    monkeypatch.setattr(estimation, "estimate", lossless_only)
    options = {"defences": [], "attacks": ["estimated-30"], "limit": 2, "shown": 1, "repair": ""}
    summary = audit(str(tmp_path / "mark.png"), str(many), str(tmp_path / "report"), **options)
    (plain,) = summary["defences"]
    lossless = next(one for one in plain["results"] if (one["attack"], one["encoding"]) == ("estimated-30", "lossless"))
    assert calls == [30, 30] and lossless["not_found"] is None and lossless["located"] == 2
    assert lossless["figures"]["covered_psnr_gain"]["mean"] > 5
    assert summary["model"] is None and summary["pictures"]["read"] == 30
    html = (tmp_path / "report" / "index.html").read_text()
    assert 'alt="the mark as it was laid"' in html and 'alt="estimated-30, lossless"' in html


def test_copies_that_do_not_reveal_their_mark_are_a_result(many):
    unmarked = [np.asarray(Image.open(path)) for path in sorted(many.iterdir())[::8][:5]]
    with pytest.raises(estimation.NotEstimated, match="pictures") as error:
        estimation.estimate(unmarked)
    assert "\n" not in str(error.value) and "extract" not in str(error.value)


def test_an_attack_that_found_nothing_is_in_the_report(canvas, many, model, tmp_path, monkeypatch):
    def not_found(copies):
        raise estimation.NotEstimated(f"<i>{len(copies)}</i> pictures: nothing in common")

    monkeypatch.setattr(estimation, "estimate", not_found)
    options = {"defences": [], "attacks": ["estimated-5", "blind"], "limit": 1, "repair": "", "model_path": str(model)}
    summary = audit(str(canvas), str(many), str(tmp_path / "report"), **options)
    results = [one for one in summary["defences"][0]["results"] if one["attack"] == "estimated-5"]
    assert [one["not_found"] for one in results] == ["<i>5</i> pictures: nothing in common"] * 2
    assert [(one["grade"], one["pictures"]) for one in results] == [(None, 0)] * 2
    assert summary["grade"] is not None
    html = (tmp_path / "report" / "index.html").read_text()
    assert "not found" in html and "&lt;i&gt;5" in html and "<i>5" not in html


def test_an_estimate_that_breaks_is_no_result(crops, monkeypatch):
    def breaks(_):
        raise MemoryError("estimating")

    monkeypatch.setattr(estimation, "estimate_mark", breaks)
    with pytest.raises(MemoryError):
        estimation.estimate(list(crops[:5]))


def _command(*arguments):
    command = [sys.executable, "-m", "serving.audit", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)


def test_a_picture_that_does_not_decode_is_named_and_the_others_go_on(canvas, images, model, tmp_path):
    (tmp_path / "photos").mkdir()
    for path in images.iterdir():
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "photos" / "empty.png").touch()
    Image.new("RGB", (20, 300)).save(tmp_path / "photos" / "thin.png")
    options = ["--attacks=blind", "--defences=", f"--model={model}", f"--out={tmp_path / 'new' / 'report'}"]
    done = _command(f"--canvas={canvas}", f"--images={tmp_path / 'photos'}", *options)
    assert done.returncode == 1, done.stderr
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" empty.png", " thin.png"]
    assert done.stdout.splitlines()[0].startswith("plain: grade ")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "new" / "report" / "index.html")
    summary = json.loads((tmp_path / "new" / "report" / "summary.json").read_text())
    assert [one["picture"] for one in summary["pictures"]["failed"]] == ["empty.png", "thin.png"]
    assert summary["pictures"]["restored"] == 3
    assert "smaller than 64 x 64" in (tmp_path / "new" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    "given, word",
    [(["--canvas=m"], "--images is missing"), (["--side=8"], "side")],
)
def test_a_command_line_that_lacks_something_is_told_so_in_a_line(given, word):
    done = _command(*given)
    assert done.returncode == 1 and word in done.stderr and done.stderr.count("\n") == 1


def test_what_cannot_be_audited_is_named_and_leaves_nothing(canvas, images, mark, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "opaque.png")
    sparse = Image.new("RGBA", (900, 900))
    for corner in ((0, 0), (700, 860)):
        sparse.paste(mark.crop((0, 0, 100, 30)), corner)
    sparse.save(tmp_path / "sparse.png")
    before = sorted(tmp_path.iterdir())
    good = {"canvas": str(canvas), "images": str(images), "out": "report", "model_path": str(model), "repair": ""}
    good |= {"attacks": ["blind"], "defences": []}
    for wrong, words in [
        ({"canvas": "nowhere.png"}, "nowhere.png: no such file"),
        ({"canvas": "opaque.png"}, "opaque.png: has no alpha"),
        ({"canvas": "sparse.png"}, "--canvas=sparse.png: nothing is in its middle .* --side"),
        ({"images": "nowhere"}, "nowhere: no such file"),
        ({"images": "none"}, "holds no pictures"),
        ({"images": "bad"}, "--images=bad: no picture can be read; the first: cannot identify"),
        ({"model_path": "nowhere"}, "nowhere: no such folder"),
        ({"attacks": ["keyed"], "repair": "none"}, "none"),
        ({"attacks": ["magic"]}, "--attacks: no attack is called 'magic'"),
        ({"attacks": ["estimated-3"]}, "estimated-3: at least 5 copies"),
        ({"attacks": ["blind", "blind"]}, "blind is given twice"),
        ({"attacks": []}, "--attacks: is empty"),
        ({"attacks": ["estimated-50"]}, "estimated-50 needs 50 pictures, and 3 can be read; give more by --images"),
        ({"defences": ["armour"]}, "--defences: none is called 'armour'; there are moved, warp"),
        ({"defences": ["warp", "warp"]}, "warp is given twice"),
        ({"out": "none"}, "none: exists"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            audit(**{**good, **wrong})
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_audit_leaves_nothing(canvas, images, model, tmp_path, monkeypatch):
    monkeypatch.setattr(attacks.Attacks, "prepare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        audit(str(canvas), str(images), str(tmp_path / "r"), model_path=str(model), attacks=["blind"], defences=[])
    assert list(tmp_path.iterdir()) == []


def test_importing_the_audit_defines_no_flags():
    code = "from absl import flags; before = set(flags.FLAGS); import serving.audit\n"
    code += "assert not {'canvas', 'side', 'attacks'} & (set(flags.FLAGS) - before)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)

"""What a model leaves as it was comes back byte for byte, counted and named, by whatever way it was sent."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from common.command_line import UserError
from common.storage import filesystem
from serving.batch import job, worker
from serving.batch.job import restore_batch
from serving.client import Restorer
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.key import key
from serving.restoring import video
from serving.restoring.folder import restore_folder
from serving.restoring.local import LoadedModel
from serving.restoring.untouched_pictures import MARK_NOT_FOUND, NOTHING_CHANGED
from serving.restoring.video import restore_video
from serving.web import uploads
from tests.conftest import SHARED
from tests.marks import CANVASES, lay
from tests.serving.conftest import decoded, encoded, export, model_config
from tests.serving.restoring.test_photo import exif
from tests.serving.restoring.test_video import ffmpeg, frames_of
from tests.serving.test_batch_restore import ROOT, block, command, contents, wait_until, write

pytestmark = pytest.mark.slow

CASE = SHARED / "cases" / "04-mark-not-there"
STAMP = np.asarray(CANVASES["one stamp"])
THREADS = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]


@pytest.fixture(scope="module")
def keyed_dir(tmp_path_factory):
    """A keyed export for a stamp that pictures show as it is."""
    folder = tmp_path_factory.mktemp("keyed")
    CANVASES["one stamp"].save(folder / "mark.png")
    return key(str(folder / "mark.png"), str(folder / "export"), repair="", scale="1", rotate="0").parent


@pytest.fixture(scope="module")
def loaded(keyed_dir):
    """The same in this process."""
    return LoadedModel(f"{keyed_dir}/1")


@pytest.fixture(scope="module")
def whites_dir(tmp_path_factory):
    """A model that knows of no marks, and makes what is pure white grey: quick to load, unlike a keyed export."""
    folder = tmp_path_factory.mktemp("whites")
    export(lambda images: tf.where(tf.reduce_all(images == 1.0, axis=-1, keepdims=True), 0.5, images), folder)
    return folder


@pytest.fixture(scope="module")
def address(keyed_dir, identity_dir, export_dir, whites_dir):
    """A server with models that find a mark, change nothing, change everything, and change what is white."""
    exports = {"keyed": keyed_dir, "identity": identity_dir, "blind": export_dir, "whites": whites_dir}
    configs = [model_config(name, path) for name, path in exports.items()]
    with ModelStore(configs, poll_seconds=0) as store, Endpoint(store) as endpoint:
        yield endpoint.address


@pytest.fixture(scope="module")
def restorer(address):
    with Restorer(address, "keyed", deadline_seconds=500) as restorer:  # the first answer of a keyed export takes long
        yield restorer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photo):
    """Two pictures that carry the mark, four that do not, and a broken one."""
    crop = photo[:240, 100:420]
    marked = lay(crop, STAMP, (90, 30), 0.9)[0]
    source = tmp_path_factory.mktemp("pictures") / "in"
    files = {
        "marked.png": encoded(marked),
        "2024/marked.tif": encoded(marked, "TIFF"),
        "2024/clean.jpg": encoded(crop, "JPEG", quality=70),
        "2024/turned.jpg": encoded(crop, "JPEG", quality=80, exif=exif(6)),
        "a.webp": encoded(crop, "WEBP", quality=60),
        "z.png": encoded(np.dstack([crop, crop[..., 0]])),
        "broken.jpg": encoded(crop, "JPEG")[:500],
    }
    write(source, files)
    return source


NOT_FOUND = ["2024/clean.jpg", "2024/turned.jpg", "a.webp", "z.png"]


def listed(folder):
    """The list's lines: pairs of name and reason."""
    lines = (Path(folder) / "untouched.jsonl").read_text().splitlines()
    return [(line["filename"], line["reason"]) for line in map(json.loads, lines)]


def psnr(restored, clean):
    return 10 * np.log10(255**2 / np.square(restored.astype(float) - clean).mean())


def assert_right(output, pictures, photo):
    """What a keyed export makes of the pictures."""
    clean = photo[:240, 100:420]
    for name in NOT_FOUND:
        assert (output / name).read_bytes() == (pictures / name).read_bytes(), name
    for name in ("marked.png", "2024/marked.tif"):
        before, after = decoded((pictures / name).read_bytes()), decoded((output / name).read_bytes())
        assert psnr(after, clean) > psnr(before, clean) + 15, name
    assert listed(output) == [(name, MARK_NOT_FOUND) for name in NOT_FOUND]


def test_the_client_copies_counts_and_names_them(restorer, pictures, photo, tmp_path):
    summary = restore_folder(restorer, pictures, tmp_path, progress=False)
    assert (summary.restored, summary.mark_not_found, summary.unchanged, len(summary.failures)) == (2, 4, 0, 1)
    assert summary.untouched == [(name, MARK_NOT_FOUND) for name in NOT_FOUND]
    expected = f"restored 2, mark not found in 4 (listed in {tmp_path}/untouched.jsonl), failed 1; "
    assert str(summary).startswith(expected)
    assert_right(tmp_path, pictures, photo)
    assert len(contents(tmp_path)) == 7, "nothing but pictures and their list"


def test_a_batch_writes_the_same(restorer, keyed_dir, loaded, pictures, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "LoadedModel", lambda _: loaded)  # its first answer takes long
    restore_folder(restorer, pictures, tmp_path / "client", progress=False)
    summary = restore_batch(keyed_dir, pictures, tmp_path / "batch", beam_options=THREADS)
    assert (summary.restored, summary.mark_not_found, summary.unchanged, len(summary.failures)) == (2, 4, 0, 1)
    expected = f"restored 2, mark not found in 4 (listed in {tmp_path}/batch/untouched.jsonl), failed 1 (listed in "
    assert str(summary).startswith(expected)
    assert_right(tmp_path / "batch", pictures, photo)
    found = contents(tmp_path / "batch")
    assert json.loads(found.pop("failed.jsonl"))["filename"] == "broken.jpg"
    assert found == contents(tmp_path / "client")


def test_the_client_keeps_the_lines_of_earlier_runs(restorer, address, pictures, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(pictures, source)
    (source / "broken.jpg").unlink()
    restore_folder(restorer, source / "a.webp", output, progress=False)
    assert listed(output) == [("a.webp", MARK_NOT_FOUND)]
    summary = restore_folder(restorer, source, output, progress=False)
    assert (summary.restored, summary.mark_not_found, summary.skipped) == (2, 3, 1)
    assert listed(output) == [(name, MARK_NOT_FOUND) for name in NOT_FOUND]
    (output / "z.png").unlink()
    (source / "z.png").unlink()
    (source / "a.webp").write_bytes((source / "marked.png").read_bytes())
    restore_folder(restorer, source / "a.webp", output, overwrite=True, progress=False)
    assert listed(output) == [(name, MARK_NOT_FOUND) for name in NOT_FOUND[:2]], "one is restored, one is gone"
    with Restorer(address, "blind") as blind:
        assert restore_folder(blind, source, output, overwrite=True, progress=False).untouched == []
    assert "untouched.jsonl" not in contents(output), "there is nothing to list"


def test_a_list_that_is_not_ours_is_named(restorer, keyed_dir, pictures, tmp_path):
    (tmp_path / "untouched.jsonl").write_text("[1, 2]\n")
    for run in (
        lambda: restore_folder(restorer, pictures, tmp_path, progress=False),
        lambda: restore_batch(keyed_dir, pictures, tmp_path),
    ):
        with pytest.raises(UserError, match="untouched.jsonl: not a list of untouched pictures; move it elsewhere"):
            run()
    assert (tmp_path / "untouched.jsonl").read_text() == "[1, 2]\n"


def test_lists_in_the_input_are_passed_over(restorer, identity_dir, pictures, tmp_path):
    source = tmp_path / "in"
    write(source, {"z.png": (pictures / "z.png").read_bytes(), "untouched.jsonl": b"", "sub/failed.jsonl": b"{}\n"})
    assert restore_folder(restorer, source, tmp_path / "client", progress=False).others == 0
    assert restore_batch(identity_dir, source, tmp_path / "batch").others == 0
    write(source, {"other.jsonl": b""})
    assert restore_folder(restorer, source, tmp_path / "client", progress=False).others == 1


@pytest.fixture(scope="module")
def many(tmp_path_factory, photo):
    """40 crops of a photograph, all but every fifth one without anything white."""
    source = tmp_path_factory.mktemp("many") / "in"
    for index in range(40):
        crop = photo[index : index + 100, 100:360].clip(0, 250)
        if index % 5 == 0:
            crop[20:30, 20:30] = 255
        write(source, {f"{index % 4}/{index:03}.png": encoded(crop)})
    return source


@pytest.fixture(scope="module")
def many_restored(many, whites_dir, tmp_path_factory):
    """What an undisturbed batch makes of them."""
    output = tmp_path_factory.mktemp("restored") / "out"
    summary = restore_batch(whites_dir, many, output)
    assert (summary.restored, summary.unchanged) == (8, 32)
    return contents(output)


def test_a_client_that_is_killed_loses_no_line(address, many, many_restored, tmp_path):
    arguments = ["-m", "serving.client", f"--server={address}", "--model_name=whites", "--in_flight=1", many, tmp_path]
    process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: len([*tmp_path.rglob("*.png")]) > 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len([*tmp_path.rglob("*.png")]) < 40 and not (tmp_path / "untouched.jsonl").exists()
    with Restorer(address, "whites") as whites:
        assert restore_folder(whites, many, tmp_path, progress=False).skipped > 6
    found = {name: data for name, data in contents(tmp_path).items() if not name.rpartition("/")[2].startswith(".tmp-")}
    assert {**found, "failed.jsonl": b""} == many_restored


def test_a_batch_that_is_killed_loses_no_line(many, many_restored, whites_dir, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(many, source)
    unblock = block(source / "2" / "022.png")
    arguments = command(f"--model={whites_dir}", f"--input={source}/**", f"--output={output}", *THREADS)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: len([*output.rglob("*.png")]) > 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    unblock()
    summary = restore_batch(whites_dir, f"{source}/**", output, beam_options=THREADS)
    assert summary.skipped > 5
    assert summary.unchanged < 32
    assert contents(output) == many_restored


def started(whites_dir, many, output, number):
    told = worker.Job(f"{whites_dir}/1", str(many), str(output), f"{number:032x}")
    made = worker.RestoreBatch(told, PipelineOptions([]))
    made.setup()
    return made


def test_a_copy_is_never_there_without_its_line(many, many_restored, whites_dir, tmp_path, monkeypatch):
    """A worker dies at its fourth file, after a copy or two; the next job finds those there and skips them."""
    names = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.png"))[:6]
    batch_of_six, writes, create_whole = json.dumps([0, names]), [], filesystem.create_whole

    def full(path, scratch=None):
        writes.append(path)
        if len(writes) == 4:
            raise OSError(28, "No space left on device")
        return create_whole(path, scratch)

    monkeypatch.setattr(filesystem, "create_whole", full)
    with pytest.raises(UserError, match="No space left on device"):
        started(whites_dir, many, tmp_path, 1).process(batch_of_six)
    monkeypatch.undo()
    assert 0 < len([*tmp_path.rglob("*.png")]) < 6
    assert restore_batch(whites_dir, many, tmp_path).skipped > 0
    assert contents(tmp_path) == many_restored


def test_a_batch_that_is_done_twice_loses_no_line(many, many_restored, whites_dir, tmp_path):
    """Two attempts of one job at a batch, the second of which gets no further than its first pictures."""
    names = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.png"))
    for count in (6, 2):
        started(whites_dir, many, tmp_path, 1).process(json.dumps([0, names[:count]]))
    assert restore_batch(whites_dir, many, tmp_path).skipped == 6
    assert contents(tmp_path) == many_restored


def test_a_worker_that_outlives_its_job_loses_no_line(many, many_restored, whites_dir, tmp_path, monkeypatch):
    """Its lines are there when the next job starts, its copies come later, and that job is killed as well."""
    names = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.png"))
    started(whites_dir, many, tmp_path, 1).process(json.dumps([0, names[:4]]))
    copies = {name: (tmp_path / name).read_bytes() for name in names[:4]}
    for name in copies:
        (tmp_path / name).unlink()

    def killed(*_):
        raise InterruptedError

    monkeypatch.setattr(job, "build", killed)
    with pytest.raises(InterruptedError):
        restore_batch(whites_dir, many, tmp_path)
    monkeypatch.undo()
    write(tmp_path, copies)
    assert restore_batch(whites_dir, many, tmp_path).skipped == 4
    assert contents(tmp_path) == many_restored


def test_a_batch_that_overwrites_lists_its_own_alone(many, many_restored, whites_dir, export_dir, tmp_path):
    write(tmp_path, many_restored)
    write(tmp_path, {"other/kept.jpg": b"of another folder"})
    line = json.dumps({"filename": "other/kept.jpg", "reason": MARK_NOT_FOUND}) + "\n"
    with open(tmp_path / "untouched.jsonl", "a") as file:
        file.write(line)
    summary = restore_batch(export_dir, many, tmp_path, overwrite=True)
    assert (summary.restored, summary.untouched) == (40, [])
    assert (tmp_path / "untouched.jsonl").read_text() == line


def plain(pixels, mode=None, image_format="PNG", **options):
    return encoded(pixels, image_format, mode, **options)


UNCHANGED = {
    "subsampled.jpg": lambda crop: plain(crop, None, "JPEG", quality=85),
    "progressive.jpg": lambda crop: plain(crop, None, "JPEG", quality=60, progressive=True, subsampling=1),
    "grey.jpg": lambda crop: plain(crop, "L", "JPEG"),
    "turned.jpg": lambda crop: plain(crop, None, "JPEG", exif=exif(8)),
    "rgb.png": plain,
    "alpha.png": lambda crop: plain(np.dstack([crop, crop[..., 1]])),
    "palette.png": lambda crop: plain(crop, "P", transparency=3),
    "deep.png": lambda crop: plain(crop[..., 0].astype(np.uint16) * 257 + 5),
    "grey alpha.png": lambda crop: plain(np.dstack([crop, crop[..., 1]]), "LA"),
    "page.gif": lambda crop: plain(crop, None, "GIF"),
    "page.bmp": lambda crop: plain(crop, None, "BMP"),
    "scan.tif": lambda crop: plain(crop, None, "TIFF"),
    "web.webp": lambda crop: plain(crop, None, "WEBP"),
}


def test_what_a_model_without_a_mark_does_not_change_is_copied_in_every_format(address, identity_dir, photo, tmp_path):
    """A server of an older export says nothing of marks: the pixels decide, whatever decodes them."""
    write(tmp_path / "in", {name: make(photo[31:200, 150:283]) for name, make in UNCHANGED.items()})
    with Restorer(address, "identity") as identity:
        summary = restore_folder(identity, tmp_path / "in", tmp_path / "out", progress=False)
    assert summary.failures == []
    assert (summary.restored, summary.mark_not_found, summary.unchanged) == (0, 0, len(UNCHANGED))
    assert f"unchanged {len(UNCHANGED)} in which the model found nothing to restore (listed in " in str(summary)
    assert listed(tmp_path / "out") == [(name, NOTHING_CHANGED) for name in sorted(UNCHANGED)]
    restore_batch(identity_dir, tmp_path / "in", tmp_path / "batch")
    written = contents(tmp_path / "out")
    assert {**written, "failed.jsonl": b""} == contents(tmp_path / "batch")
    del written["untouched.jsonl"]
    assert written == contents(tmp_path / "in")


def test_code_is_told_whether_the_mark_was_found(restorer, address, loaded, identity_dir, photo):
    crop = photo[:240, 100:420]
    marked = lay(crop, STAMP, (90, 30), 0.9)[0]
    for pixels, found in ((marked, True), (crop, False)):
        answer = restorer.ask(encoded(pixels))
        assert answer.found is found and answer == loaded.ask(encoded(pixels))
        assert restorer.restore_bytes(encoded(pixels)) == answer.restored_bytes
        assert restorer.ask_pixels(pixels).found.item() is found
    both = restorer.ask_pixels(np.stack([crop, marked]))
    assert both.found.tolist() == [False, True] and both.restored.shape == (2, *crop.shape)
    with Restorer(address, "identity") as identity:
        assert identity.ask(encoded(crop)).found is None and identity.ask_pixels(crop).found is None
    assert LoadedModel(f"{identity_dir}/1").ask(encoded(crop)).found is None


def test_an_upload_says_so_and_comes_back_as_it_was(restorer, pictures, tmp_path):
    app_page = pytest.importorskip("serving.web.page", reason="no Gradio; pip install 'cleanplate[demo]'")
    names = ["marked.png", "2024/turned.jpg", "z.png", "broken.jpg"]
    given = [uploads.Upload(name, pictures / name) for name in names]
    outcomes = list(uploads.restore_uploads(restorer, given, tmp_path))
    marked, turned, clear, broken = outcomes
    assert isinstance(broken, uploads.Failure)
    assert [one.untouched for one in (marked, turned, clear)] == [None, MARK_NOT_FOUND, MARK_NOT_FOUND]
    assert turned.restored.read_bytes() == (pictures / "2024" / "turned.jpg").read_bytes()
    before, after = Image.open(turned.before), Image.open(turned.after)
    assert before.size == after.size == (240, 320), "both stand upright, as the file does not"
    results = app_page._Results(tmp_path, [marked, turned, clear], [broken])
    said = app_page._summary(results, [])
    assert "<p>1 picture restored.</p><p>Mark not found in 2, returned unchanged: turned.jpg, z.png.</p>" in said
    assert app_page._compare(turned)["label"] == "turned.jpg: mark not found: your file, unchanged"
    assert app_page._compare(marked)["label"] == "marked.png: before | after"
    assert app_page._caption(clear) == "z.png (mark not found)"
    assert app_page._files_label(results) == "Restored pictures, and 2 unchanged"
    unrestored = app_page._summary(app_page._Results(tmp_path, [clear]), [])
    assert "<p>No pictures restored.</p><p>Mark not found in 1, returned unchanged: z.png.</p>" in unrestored


def test_a_video_names_the_frames_without_the_mark(restorer, photo, tmp_path):
    width, height = 288, 96
    clean = np.stack([photo[index : index + height, 100 : 100 + width] for index in range(12)])
    shown = clean.copy()
    with_mark = [*range(4), *range(7, 10)]
    for index in with_mark:
        shown[index] = lay(clean[index], STAMP, (30, 30), 0.9)[0]
    pipe = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    ffmpeg(*pipe, "-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p", source, stdin=shown.tobytes())
    summary = restore_video(restorer, source, target, progress=False)
    assert str(summary) == "restored 7 frames, mark not found in 5 (frames 5-7, 11-12)"
    assert (summary.frames, summary.restored, summary.mark_not_found, summary.unchanged) == (12, 7, 5, 0)
    assert summary.untouched_for(MARK_NOT_FOUND) == [5, 6, 7, 11, 12]
    before, after = frames_of(source), frames_of(target)
    for index in range(12):
        if index in with_mark:
            assert psnr(after[index], clean[index]) > psnr(before[index], clean[index]) + 10, index
        else:
            assert psnr(after[index], before[index]) > 38, index


def test_many_ranges_of_frames_are_cut_short():
    frames = [(2 * number, MARK_NOT_FOUND) for number in range(1, 14)]
    said = str(video.VideoSummary(restored=13, untouched=[*frames, (30, NOTHING_CHANGED)]))
    assert said == (
        "restored 13 frames, mark not found in 13 (frames 2, 4, 6, 8, 10, 12, 14, 16, 18, 20 and 3 more ranges), "
        "unchanged 1 in which the model found nothing to restore (frame 30)"
    )


@pytest.mark.skipif(not CASE.is_dir(), reason=f"no {CASE}: the case was not handed out with this checkout")
def test_one_marked_picture_among_three_in_which_it_is_not_found(tmp_path):
    export_dir, out = key(str(CASE / "mark.png"), str(tmp_path / "export"), repair="").parent, tmp_path / "out"
    result = subprocess.run(
        command(f"--model={export_dir}", f"--input={CASE}/photos", f"--output={out}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"restored 1, mark not found in 3 (listed in {out}/untouched.jsonl), failed 0; ")
    names = ["2-clean.jpg", "3-marked-2.5x.jpg", "4-marked-faint.jpg"]
    assert listed(out) == [(name, MARK_NOT_FOUND) for name in names]
    for name in names:
        assert (out / name).read_bytes() == (CASE / "photos" / name).read_bytes()
    before, after = (decoded((folder / "1-marked.jpg").read_bytes()) for folder in (CASE / "photos", out))
    assert 500 < (np.abs(after.astype(int) - before).max(axis=-1) > 8).sum() < 10_000, "the mark is gone, no more"

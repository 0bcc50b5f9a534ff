"""Any number of pictures are restored as the client would, whoever is killed meanwhile, and nothing is left over."""

import collections
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.internal import pickler
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from common.command_line import UserError
from common.storage import filesystem
from serving.batch import job, worker
from serving.batch.inputs import find_pictures
from serving.batch.job import restore_batch
from serving.client import Restorer
from serving.restoring.folder import restore_folder
from serving.restoring.local import LoadedModel, find_version
from tests.dask_cluster import dask_cluster
from tests.object_store import s3_server
from tests.serving.conftest import encoded
from tests.serving.restoring.test_photo import PROFILE, XMP, exif

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
LISTS = ("failed.jsonl", "untouched.jsonl")
PROCESS = ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photo):
    """Pictures of all kinds, three that cannot be restored, and two files that are no pictures."""
    source = tmp_path_factory.mktemp("pictures") / "in"
    crop = photo[30:121, 150:283]
    rgba = np.dstack([crop, crop[..., 0]])
    files = {
        "holiday/a.JPG": encoded(crop, "JPEG", quality=92, exif=exif(), icc_profile=PROFILE, comment=b"a comment"),
        "holiday/turned.jpg": encoded(crop, "JPEG", exif=exif(6), xmp=XMP),
        "holiday/deep/[1] & ü.png": encoded(rgba, exif=exif(), icc_profile=PROFILE, dpi=(72, 72)),
        "grey.jpg": encoded(crop, "JPEG", "L"),
        "scan.tif": encoded(crop, "TIFF", exif=exif(), dpi=(300, 300)),
        "web.webp": encoded(crop, "WEBP", exif=exif(3)),
        "broken.jpg": encoded(photo, "JPEG")[:3000],
        "holiday/cmyk.jpg": encoded(crop, "JPEG", "CMYK"),
        "text.jpg": b"not a picture",
        "notes.txt": b"not a picture",
        ".hidden.jpg": b"not a picture",
    }
    write(source, files)
    return source


@pytest.fixture(scope="module")
def restored(pictures, export_dir, tmp_path_factory):
    """What an uninterrupted job on the local runner makes of them: the summary, and every file of the output."""
    output = tmp_path_factory.mktemp("restored") / "out"
    summary = restore_batch(export_dir, pictures, output)
    return summary, contents(output)


@pytest.fixture
def folder(pictures, tmp_path):
    """A copy of the pictures, to change."""
    return Path(shutil.copytree(pictures, tmp_path / "in"))


@pytest.fixture(scope="module")
def many(tmp_path_factory, photo):
    """40 JPEGs that differ, and one that is broken; their batches are of one picture each."""
    source = tmp_path_factory.mktemp("many") / "in"
    files = {f"{index % 4}/{index:03}.jpg": encoded(photo[index : index + 64, :80], "JPEG") for index in range(40)}
    write(source, {**files, "0/broken.jpg": b"broken"})
    return source


@pytest.fixture(scope="module")
def many_restored(many, export_dir, tmp_path_factory):
    """Every file that an uninterrupted job on the local runner writes for them."""
    output = tmp_path_factory.mktemp("restored") / "out"
    restore_batch(export_dir, many, output)
    assert len(contents(output)) == 40 + len(LISTS)
    return contents(output)


def contents(folder):
    """Every file below a folder: name -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }  # fmt: skip


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def command(*arguments):
    return [sys.executable, "-m", "serving.batch_restore", *map(str, arguments)]


def wait_until(condition, process):
    """Polls while a process that should not end runs."""
    while not condition():
        assert process.poll() is None, "ended before"
        time.sleep(0.01)


def block(path):
    """Puts a pipe in a picture's place: who reads it waits until the returned function is called."""
    original = path.read_bytes()
    path.unlink()
    os.mkfifo(path)

    def unblock():
        pipe = os.open(path, os.O_RDWR)
        path.with_suffix(".new").write_bytes(original)
        os.replace(path.with_suffix(".new"), path)
        os.write(pipe, original)  # to who waits already
        os.close(pipe)

    return unblock


def test_a_picture_comes_out_as_the_client_writes_it(pictures, restored, server, tmp_path):
    with Restorer(server) as restorer:
        by_client = restore_folder(restorer, pictures, tmp_path, progress=False)
    summary, found = restored
    assert len(contents(tmp_path)) == 6
    assert {name: content for name, content in found.items() if name not in LISTS} == contents(tmp_path)
    assert (summary.restored, summary.skipped, summary.others) == (6, 0, by_client.others) == (6, 0, 1)
    reasons = {name: reason.replace(" (INVALID_ARGUMENT)", "") for name, reason in by_client.failures}
    assert dict(summary.failures) == reasons


def test_what_cannot_be_restored_is_listed_with_the_reason(restored):
    summary, found = restored
    lines = [json.loads(line) for line in found["failed.jsonl"].splitlines()]
    assert [(line["filename"], line["reason"]) for line in lines] == summary.failures
    reasons = dict(summary.failures)
    assert list(reasons) == ["broken.jpg", "holiday/cmyk.jpg", "text.jpg"]
    assert "Invalid JPEG data" in reasons["broken.jpg"]
    assert reasons["holiday/cmyk.jpg"] == "CMYK pixels; convert it to RGB with 8 bits a channel first"
    assert reasons["text.jpg"] == "not a JPEG, PNG, BMP, GIF, TIFF or WebP, or damaged"
    assert str(summary).startswith(f"restored 6, failed 3 (listed in {summary.failed_file}), left alone 1 files")


def test_the_next_run_does_what_is_left_and_tries_again_what_failed(folder, restored, export_dir, tmp_path, photo):
    output = tmp_path / "out"
    write(output, restored[1])
    (output / "grey.jpg").write_bytes(b"mine")
    (output / "scan.tif").unlink()
    for name in ("broken.jpg", "holiday/cmyk.jpg", "text.jpg"):
        (folder / name).write_bytes(encoded(photo[:20, :30], "JPEG"))
    summary = restore_batch(export_dir, folder, output)
    assert (summary.restored, summary.skipped, summary.failures) == (4, 5, [])
    found = contents(output)
    assert (found["grey.jpg"], found["scan.tif"]) == (b"mine", restored[1]["scan.tif"])
    assert found["failed.jsonl"] == b""
    again = restore_batch(export_dir, folder, output)
    assert (again.restored, again.skipped) == (0, 9)
    assert contents(output) == found


def test_overwrite_restores_all_again_and_keeps_nothing_that_now_fails(pictures, restored, export_dir, tmp_path):
    older = {"grey.jpg": b"of an older model", "text.jpg": b"of an older text.jpg", "other.txt": b"not ours"}
    write(tmp_path, {**restored[1], **older})
    summary = restore_batch(export_dir, pictures, tmp_path, overwrite=True)
    assert (summary.restored, summary.skipped, len(summary.failures)) == (6, 0, 3)
    assert contents(tmp_path) == {**restored[1], "other.txt": b"not ours"}


@pytest.fixture
def killed(tmp_path):
    """The output of a job that was killed: half a picture, the failures of a batch, and the list of the job before."""
    with filesystem.create_whole(str(tmp_path / "out" / "holiday" / "a.JPG")) as file:
        file.write(b"half a pict")
        file.flush()
        output = Path(shutil.copytree(tmp_path / "out", tmp_path / "killed"))
    line = '{"filename": "broken.jpg", "reason": "the disk was slow"}\n'
    filesystem.write_text(worker.failures_path(worker.Job("", "", str(output), "0" * 32), 0), line)
    (output / "failed.jsonl").write_text(line)
    assert len(contents(output)) == 3 and not (output / "holiday" / "a.JPG").exists()
    return output


def test_leftovers_of_a_killed_job_do_not_matter(pictures, restored, export_dir, killed):
    restore_batch(export_dir, pictures, killed)
    assert contents(killed) == restored[1]


def test_leftovers_of_a_killed_job_are_gone_before_the_work_begins(pictures, export_dir, killed, monkeypatch):
    def begin(*_):
        raise InterruptedError(f"with {list(contents(killed))}")

    monkeypatch.setattr(job, "build", begin)
    with pytest.raises(InterruptedError, match=r"^with \[\]$"):
        restore_batch(export_dir, pictures, killed)


def test_a_command_that_is_killed_goes_on_when_it_is_started_again(many, many_restored, export_dir, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(many, source)
    unblock = block(source / "2" / "022.jpg")
    # One of two threads waits at the pipe, while the other goes on.
    threads = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    arguments = command(f"--model={export_dir}", f"--input={source}/**", f"--output={output}", *threads)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: len([*output.rglob("*.jpg")]) > 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "failed.jsonl").exists(), "as long as it is missing, the job has not finished"
    unblock()
    summary = restore_batch(export_dir, f"{source}/**", output, beam_options=threads)
    assert summary.skipped > 5 and summary.restored == 40 - summary.skipped > 0
    assert contents(output) == many_restored


@pytest.mark.parametrize("workers", [[], PROCESSES])
def test_the_command_says_what_happened_and_nothing_else(pictures, restored, export_dir, tmp_path, workers):
    arguments = command(f"--model={export_dir}", f"--input={pictures}", f"--output={tmp_path}", *workers)
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"restoring 9 of 9 pictures of {pictures} with {export_dir}/1",
        *(f"failed: {name}: {reason}" for name, reason in restored[0].failures),
    ]
    assert result.stdout.startswith(f"restored 6, failed 3 (listed in {tmp_path}/failed.jsonl), left alone 1 files")
    assert contents(tmp_path) == restored[1]


def test_a_dask_worker_that_is_killed_costs_nothing(many, many_restored, export_dir, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(many, source)
    unblock = block(source / "2" / "022.jpg")
    with dask_cluster(tmp_path / "cluster") as cluster, futures.ThreadPoolExecutor() as threads:
        running = threads.submit(restore_batch, export_dir, source, output, beam_options=cluster.flags)
        wait_until(lambda: running.done() or len([*output.rglob("*.jpg")]) > 5, cluster.workers[0])
        cluster.workers[0].send_signal(signal.SIGKILL)
        cluster.workers[0].wait()
        assert not running.done(), "the job was over before"
        unblock()
        summary = running.result()
        assert cluster.workers[1].poll() is None
    assert summary.restored == 40 and len(summary.failures) == 1
    assert contents(output) == many_restored


@pytest.fixture
def loads(monkeypatch):
    """How often a model was loaded in this process, by folder."""
    counted, load = collections.Counter(), LoadedModel.__init__

    def count(self, folder):
        counted[folder] += 1
        load(self, folder)

    monkeypatch.setattr(LoadedModel, "__init__", count)
    return counted


def test_threads_share_one_model(many, many_restored, export_dir, tmp_path, loads):
    threads = ["--direct_running_mode=multi_threading", "--direct_num_workers=4"]
    restore_batch(export_dir, many, tmp_path, beam_options=threads)
    assert loads == {f"{export_dir}/1": 1}
    assert contents(tmp_path) == many_restored


def test_tasks_of_a_dask_worker_share_one_model(many, many_restored, export_dir, tmp_path, loads):
    distributed = pytest.importorskip("distributed", reason="no Dask; pip install 'cleanplate[dask]'")
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 3, "dashboard_address": None}
    with distributed.Client(**options) as client:
        flags = ["--runner=DaskRunner", f"--dask_client_address={client.scheduler.address}"]
        restore_batch(export_dir, many, tmp_path, beam_options=flags)
    assert loads == {f"{export_dir}/1": 1}
    assert contents(tmp_path) == many_restored


def test_from_object_storage_to_object_storage_by_a_model_from_there(pictures, restored, export_dir):
    with s3_server() as store:
        for source, prefix in ((pictures, "photos"), (export_dir, "export")):
            for path in filter(Path.is_file, source.rglob("*")):
                store.client.upload_file(str(path), store.bucket, f"{prefix}/{path.relative_to(source)}")
        store.client.put_object(Bucket=store.bucket, Key="out/grey.jpg", Body=b"mine")
        place = (f"{store.url}/export", f"{store.url}/photos/**", f"{store.url}/out")
        summary = restore_batch(*place, beam_options=store.flags)
        assert (summary.restored, summary.skipped, len(summary.failures)) == (5, 1, 3)
        summary = restore_batch(*place, overwrite=True, beam_options=[*store.flags, *PROCESS])
        assert (summary.restored, summary.skipped, len(summary.failures)) == (6, 0, 3)
        keys = [entry["Key"] for entry in store.client.list_objects_v2(Bucket=store.bucket, Prefix="out/")["Contents"]]
        bodies = [store.client.get_object(Bucket=store.bucket, Key=key)["Body"].read() for key in keys]
        assert dict(zip([key[len("out/") :] for key in keys], bodies)) == restored[1]
        with pytest.raises(UserError, match=f"--model={store.url}/photos: no version in it"):
            restore_batch(f"{store.url}/photos", *place[1:], beam_options=store.flags)


def test_a_worker_that_was_never_told_of_object_storage_reaches_it(pictures, restored, export_dir):
    """Dask's unpickle what they shall do, and know nothing of the main process's options."""
    with s3_server() as store:
        options = PipelineOptions(store.flags)
        told = worker.Job(f"{export_dir}/1", str(pictures), f"{store.url}/told", "0" * 32)
        [batch_of_one] = worker.batches(["grey.jpg"])
        pickled = pickler.dumps(worker.RestoreBatch(told, options))
        FileSystems.set_options(PipelineOptions([]))
        restore = pickler.loads(pickled)
        restore.setup()
        restore.process(batch_of_one)
        written = store.client.get_object(Bucket=store.bucket, Key="told/grey.jpg")["Body"].read()
        assert written == restored[1]["grey.jpg"]


def test_a_job_server_runs_the_pipeline_from_its_portable_form(pictures, restored, export_dir, tmp_path):
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    restore_batch(export_dir, pictures, tmp_path, beam_options=flags)
    assert contents(tmp_path) == restored[1]


def test_the_portable_form_holds_names_and_our_function_which_unpickles():
    options = PipelineOptions(["--runner=PortableRunner", "--job_endpoint=nowhere:1"])
    pipeline = beam.Pipeline(options=options)
    asked = worker.Job("/export/1", "/in", "/out", "0" * 32)
    names = [f"{index:06}.jpg" for index in range(5000)]
    job.build(pipeline, asked, names, options)
    proto = pipeline.to_runner_api()
    functions = [
        pickler.loads(beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload)[0]
        for transform in proto.components.transforms.values()
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn
    ]
    assert [type(function) for function in functions].count(worker.RestoreBatch) == 1
    assert proto.ByteSize() < 2 * len(json.dumps(names))


@pytest.mark.parametrize(
    ("pictures", "batches", "largest"), [(1, 1, 1), (64, 64, 1), (1000, 67, 15), (5000, 313, 16), (10**6, 4082, 245)]
)
def test_batches_hold_every_name_once_and_are_not_too_many(pictures, batches, largest):
    names = [f"{index}.jpg" for index in range(pictures)]
    cut = [json.loads(text) for text in worker.batches(names)]
    assert [index for index, _ in cut] == list(range(batches))
    assert [name for _, part in cut for name in part] == names
    assert max(len(part) for _, part in cut) == largest


def found(pattern, output="/elsewhere"):
    return find_pictures(str(pattern), str(output)).names


def test_a_pattern_keeps_names_below_its_fixed_folder(pictures, monkeypatch):
    assert found(pictures / "*.jpg") == ["broken.jpg", "grey.jpg", "text.jpg"]
    assert found(f"{pictures}/holiday/**") == ["a.JPG", "cmyk.jpg", "deep/[1] & ü.png", "turned.jpg"]
    assert found(f"{pictures}/holiday/") == found(f"{pictures}/holiday/**")
    assert found(f"{pictures}/hol?day/*.jpg") == ["holiday/cmyk.jpg", "holiday/turned.jpg"]
    assert found(pictures / "grey.jpg") == ["grey.jpg"]
    assert found(pictures / "holiday" / "deep" / "[1] & ü.png") == ["[1] & ü.png"]
    monkeypatch.chdir(pictures.parent)
    assert find_pictures("in/*.webp", "out")[:2] == (str(pictures), ["web.webp"])


def test_the_output_may_lie_in_the_input_but_never_hold_the_originals(folder, export_dir):
    assert restore_batch(export_dir, folder, folder / "restored").restored == 6
    again = restore_batch(export_dir, f"{folder}/**", folder / "restored")
    assert (again.restored, again.skipped, again.others) == (0, 6, 1)
    before = contents(folder)
    for pattern, output in ((folder, folder), (folder / "holiday" / "*.jpg", folder), (folder / "grey.jpg", folder)):
        with pytest.raises(UserError, match="holds the originals"):
            restore_batch(export_dir, pattern, output, overwrite=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "nowhere"}, "--model=.*nowhere: no such folder; name one that python -m serving.export"),
        ({"model": "in"}, "--model=.*in: no version in it .expected .*in/1/saved_model.pb.; name one"),
        ({"input": "nowhere"}, "--input=.*nowhere: nothing there; name a folder, a picture or a pattern"),
        ({"input": "in/*.heic"}, r"--input=.*in/\*.heic: nothing there; `\*` stays within a folder"),
        ({"input": "in/*.txt"}, r"--input=.*in/\*.txt: no pictures there \(.bmp, "),
        ({"input": "gs://bucket/photos"}, "--input=gs://bucket/photos: no file system for gs:// here; pip install"),
        ({"output": "in/notes.txt/out"}, "--output=.*in/notes.txt/out: cannot be written: "),
    ],
)
def test_a_mistake_is_one_line(folder, export_dir, tmp_path, changed, message):
    places = {"model": str(export_dir), "input": str(folder), "output": str(tmp_path / "out")}
    places.update({flag: value if "://" in value else str(tmp_path / value) for flag, value in changed.items()})
    with pytest.raises(UserError, match=message) as error:
        restore_batch(*places.values())
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_flag_is_one_line_and_exit_code_1():
    result = subprocess.run(command("--model=export"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: --input is missing;") and len(result.stderr.splitlines()) == 1


def test_a_model_that_does_not_load_is_one_line(pictures, tmp_path, capfd):
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"^--model=.*model/1: does not load: .*; export it again, or name another$"):
        restore_batch(tmp_path / "model", pictures, tmp_path / "out", beam_options=PROCESS)
    assert capfd.readouterr().err == ""
    assert contents(tmp_path / "out") == {}


def test_a_model_of_another_kind_is_named(pictures, tmp_path, capfd):
    tf.saved_model.save(tf.Module(), str(tmp_path / "model" / "1"))
    with pytest.raises(UserError, match="model/1: does not restore pictures; name one that python -m serving.export"):
        restore_batch(tmp_path / "model", pictures, tmp_path / "out")
    assert "Traceback" not in capfd.readouterr().err


def test_an_output_that_can_no_longer_be_written_ends_the_job(pictures, restored, export_dir, tmp_path, monkeypatch):
    rename = filesystem.rename

    def full(source, destination):
        if destination.endswith("scan.tif"):
            raise OSError(28, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(filesystem, "rename", full)
    with pytest.raises(UserError, match=r"^/.*/scan.tif: cannot be written: No space left on device; mend that, and"):
        restore_batch(export_dir, pictures, tmp_path)
    assert not (tmp_path / "failed.jsonl").exists()
    assert not [name for name in contents(tmp_path) if worker.is_leftover(name)]
    monkeypatch.undo()
    restore_batch(export_dir, pictures, tmp_path)
    assert contents(tmp_path) == restored[1]


def test_the_newest_version_is_taken_unless_one_is_named(tmp_path):
    for version in ("2", "10", "9", "nightly"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").touch()
    assert find_version(str(tmp_path)) == str(tmp_path / "10")
    assert find_version(f"{tmp_path}/9/") == str(tmp_path / "9")


def test_names_that_are_no_utf_8_and_names_as_long_as_the_disk_allows(photo, export_dir, tmp_path):
    names = [b"\xff.png", b"x" * 251 + b".png"]
    os.makedirs(tmp_path / "in")
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"in", name))).write_bytes(encoded(photo[:9, :9]))
    assert restore_batch(export_dir, tmp_path / "in", tmp_path / "out").restored == 2
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted([b"failed.jsonl", b"untouched.jsonl", *names])


def test_the_bar_counts_pictures_that_are_written_again(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    filesystem.write_text(str(tmp_path / "a.jpg"), "restored again")
    filesystem.write_text(str(tmp_path / "sub" / "c.jpg"), "restored")
    assert worker.count_written(str(tmp_path), 1000.0) == 2


def test_a_workers_own_warnings_are_still_told():
    class Error(Exception):
        pass

    record = logging.LogRecord("apache_beam", logging.ERROR, "", 0, "a worker died", (), (Error, Error("x"), None))
    assert job._is_news(record)

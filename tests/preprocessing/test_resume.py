"""A job that was killed is taken up by the next with the same arguments, and by no other."""

import json
import signal
import subprocess
import sys
import time

import pytest

from common.command_line import UserError
from preprocessing.conversion import shards
from preprocessing.dataset import schema
from preprocessing.dataset.integrity import verify

pytestmark = pytest.mark.slow


def _files(folder):
    """Name -> bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _Ended(Exception):
    """Stands for a kill: the process does nothing more."""


@pytest.fixture
def stages(monkeypatch):
    """A list that grows by the name of each shard that is written anew."""
    written = []
    stage = shards._stage

    def recorded(plan, folders):
        written.append(plan.shard)
        return stage(plan, folders)

    monkeypatch.setattr(shards, "_stage", recorded)
    return written


@pytest.fixture
def reference(coco_folder, run_convert):
    """All files of the dataset, made in one go, and no longer there."""
    (coco_folder.images / "copy.jpg").write_bytes((coco_folder.images / "000000000004.jpg").read_bytes())
    run_convert(max_rejected_fraction=0.5)
    made = _files(coco_folder.output)
    coco_folder.output.rename(coco_folder.output.with_name("reference"))
    assert len(made) > 6 and b"duplicate" in made["rejected.jsonl"]
    return made


@pytest.fixture
def end_after(monkeypatch, run_convert):
    """A function that runs the job and ends it before or after the n-th call of a function."""

    def run(module, name, calls, before):
        function = getattr(module, name)
        count = 0

        def counted(*arguments, **keywords):
            nonlocal count
            count += 1
            if before and count == calls:
                raise _Ended
            result = function(*arguments, **keywords)
            if not before and count == calls:
                raise _Ended
            return result

        with monkeypatch.context() as patch:
            patch.setattr(module, name, counted)
            with pytest.raises(Exception) as raised:
                run_convert(max_rejected_fraction=0.5)
            # Beam wraps what a DoFn raises.
            assert isinstance(raised.value, _Ended) or "_Ended" in str(raised.value), raised.value

    return run


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [(shards, "_stage", 3), (shards, "publish_shard", 3), (shards, "_write_manifest", 2)]
    + [(shards.filesystem, "rename", calls) for calls in (1, 5, 13, 17, 21)]
    + [(shards.filesystem, "write_json", calls) for calls in (1, 9)]
    + [(shards.filesystem, "delete_tree", 2)],
)
def test_ended_anywhere_the_job_ends_as_if_it_never_had_been(
    coco_folder, run_convert, reference, end_after, module, name, calls, before
):
    end_after(module, name, calls, before)
    run_convert(max_rejected_fraction=0.5)
    assert _files(coco_folder.output) == reference


def test_finished_shards_are_kept_and_only_the_others_written(coco_folder, run_convert, end_after, reference, stages):
    end_after(shards, "publish_shard", 3, before=True)
    published = {path.name: path.stat() for path in coco_folder.output.glob("*.tfrecord")}
    assert len(published) == 2 and len(stages) == 5
    damaged, _, lost = sorted((coco_folder.output / "unfinished-job" / "staged").iterdir())
    content = bytearray(damaged.read_bytes())
    content[-7] ^= 1
    damaged.write_bytes(content)
    lost.unlink()
    stages.clear()
    run_convert(max_rejected_fraction=0.5)
    assert sorted(stages) == [damaged.name, lost.name]
    assert all((coco_folder.output / name).stat().st_mtime_ns == stat.st_mtime_ns for name, stat in published.items())
    assert _files(coco_folder.output) == reference


def test_a_published_shard_that_was_damaged_is_made_again(coco_folder, run_convert, end_after, reference, stages):
    end_after(shards, "publish_shard", 3, before=True)
    damaged = sorted(coco_folder.output.glob("*.tfrecord"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    stages.clear()
    run_convert(max_rejected_fraction=0.5)
    assert stages == [damaged.name]
    assert _files(coco_folder.output) == reference


def test_the_command_killed_again_and_again_loses_nothing(coco_folder, reference):
    command = [sys.executable, "-m", "preprocessing.coco_to_tfrecord", f"--images_dir={coco_folder.images}"]
    command += [f"--annotations={coco_folder.instances}", f"--captions={coco_folder.captions}", "--shard_mb=0.1"]
    command += [f"--output_dir={coco_folder.output}", "--splits=train=8,test=4", "--max_rejected_fraction=0.5"]
    command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    unfinished = coco_folder.output / "unfinished-job"
    for sign in ("staged/*", "manifests/*"):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
            while job.poll() is None and not list(unfinished.glob(sign)):
                time.sleep(0.001)
            job.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "goes on with a job that was ended" in done.stderr
    made, info = _files(coco_folder.output), "dataset_info.json"
    assert {name: made[name] for name in made if name != info} == {
        name: reference[name] for name in reference if name != info
    }
    assert json.loads(made[info])["splits"] == json.loads(reference[info])["splits"]


def test_a_finished_dataset_with_the_same_arguments_is_left_as_it_is(coco_folder, run_convert, stages, caplog):
    info = run_convert()
    before = {path: path.stat().st_mtime_ns for path in coco_folder.output.iterdir()}
    (coco_folder.output / "unfinished-job").mkdir()  # killed between its last two steps
    (coco_folder.output / "unfinished-job" / "job.json").write_text("{}")
    stages.clear()
    assert run_convert() == info
    assert not stages and "finished already, with these arguments" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in coco_folder.output.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seed": 5}, "--seed=0 instead of 5"),
        ({"split_sizes": "train=1.0"}, "--splits=train=8,test=4 instead of train=1.0"),
        ({"captions": None}, "--captions=/.*captions.json instead of None"),
        ({"shard_mb": 3, "check": "header"}, "--shard_mb=0.1 instead of 3, --check=decode instead of header"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_arguments_are_refused_and_the_difference_named(
    coco_folder, run_convert, monkeypatch, changes, complaint, finished
):
    if finished:
        run_convert()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(shards, "publish_shard", lambda *unused: 1 / 0)
            with pytest.raises(Exception, match="division"):
                run_convert()
    before = _files(coco_folder.output)
    what = "a finished dataset" if finished else "an unfinished job"
    with pytest.raises(UserError, match=f"holds {what}, made with {complaint}; .*--overwrite") as raised:
        run_convert(**changes)
    assert "\n" not in str(raised.value)
    assert _files(coco_folder.output) == before
    run_convert(**changes, overwrite=True)
    verify(str(coco_folder.output))


def test_a_job_of_another_version_is_refused_and_one_without_a_version_resumed(
    coco_folder, run_convert, end_after, reference
):
    end_after(shards, "publish_shard", 3, True)
    begun = coco_folder.output / "unfinished-job" / "job.json"
    job = json.loads(begun.read_text())
    assert job.pop("version") == 1
    begun.write_text(json.dumps({**job, "version": 99}))
    with pytest.raises(UserError, match="holds an unfinished job, made with another version .*99 instead of 1"):
        run_convert(max_rejected_fraction=0.5)
    begun.write_text(json.dumps(job))  # as version 0.1 wrote it
    run_convert(max_rejected_fraction=0.5)
    assert _files(coco_folder.output) == reference


def test_other_arguments_are_refused_before_anything_is_read(run_convert, monkeypatch):
    run_convert()
    monkeypatch.setattr(
        "preprocessing.conversion.convert.list_pictures", lambda *unused: pytest.fail("the folder was listed")
    )
    with pytest.raises(UserError, match="--seed=0 instead of 5"):
        run_convert(seed=5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder.images / "000000000004.jpg").unlink(), "--images_dir .12 pictures, .*11 pictures"),
        (lambda folder: folder.instances.write_text(json.dumps(folder.json, indent=1)), "--annotations .* bytes"),
    ],
)
def test_other_input_is_refused(coco_folder, run_convert, change, complaint):
    run_convert()
    change(coco_folder)
    with pytest.raises(UserError, match=f"made with other content of {complaint}"):
        run_convert()


def test_overwriting_takes_up_its_own_job(coco_folder, run_convert, stages, monkeypatch):
    """Killed and run again as it was, with --overwrite, it does not begin anew."""
    run_convert(seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish_shard", lambda *unused: 1 / 0)
        with pytest.raises(Exception, match="division"):
            run_convert(overwrite=True)
    stages.clear()
    run_convert(overwrite=True)
    assert not stages
    assert json.loads((coco_folder.output / schema.DATASET_INFO).read_text())["arguments"]["seed"] == 0
    verify(str(coco_folder.output))

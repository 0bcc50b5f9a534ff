"""The job as a whole: what it takes, what it refuses, and what it leaves behind."""

import json
import subprocess
import sys

import pytest

from common.command_line import UserError
from preprocessing.dataset import schema, tfrecord
from preprocessing.dataset.integrity import verify


def _run(module, *arguments):
    command = [sys.executable, "-m", f"preprocessing.{module}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_converts_and_verify_agrees_with_nothing_but_its_own_lines_printed(coco_folder):
    done = _run(
        "coco_to_tfrecord",
        f"--images_dir={coco_folder.images}",
        f"--annotations={coco_folder.instances}",
        f"--captions={coco_folder.captions}",
        f"--output_dir={coco_folder.output}",
        "--splits=train=0.75,val=0.25",
        "--shard_mb=0.1",
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=2",
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line and not line.startswith("shards:")]
    assert len(lines) == 1 and "train 9 images in" in lines[0] and "rejected 0" in lines[0]
    done = _run("verify", coco_folder.output)
    assert done.returncode == 0 and "12 images in" in done.stderr and "all good" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--shard_mbs=3"],
            "--shard_mbs: neither a flag of this command nor one of Apache Beam's; did you mean",
        ),
        (["--images_dir=/nowhere/at/all"], "--images_dir=/nowhere/at/all: no such folder"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_1(coco_folder, arguments, complaint):
    done = _run(
        "coco_to_tfrecord", f"--images_dir={coco_folder.images}", f"--output_dir={coco_folder.output}", *arguments
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line
    assert not coco_folder.output.exists()


def test_a_bare_folder_with_folders_in_it_works_without_annotations(tmp_path, coco_folder, run_convert):
    (coco_folder.images / "deep" / "er").mkdir(parents=True)
    (coco_folder.images / "000000000000.jpg").rename(coco_folder.images / "deep" / "er" / "ä [1].jpg")
    info = run_convert(annotations=None, captions=None, split_sizes="train=1.0")
    assert info["splits"]["train"]["images"] == 12
    assert info["categories"] == []
    names = []
    for path in schema.shard_paths(str(coco_folder.output), "train"):
        with open(path, "rb") as file:
            for data in tfrecord.Reader(file):
                values = schema.parse_example(data)
                assert values["image/source_id"] == values["image/filename"]
                assert values["image/object/class/label"] == []
                names.append(values["image/filename"][0].decode())
    assert "deep/er/ä [1].jpg" in names


def test_captions_alone_are_enough_to_know_the_ids(coco_folder, run_convert):
    run_convert(annotations=None)
    assert verify(str(coco_folder.output))["splits"]["train"]["images"] == 8


def test_pictures_that_the_json_does_not_name_are_kept_and_said(coco_folder, run_convert, caplog):
    coco_folder.json["images"] = coco_folder.json["images"][:1]
    coco_folder.json["annotations"] = []
    coco_folder.instances.write_text(json.dumps(coco_folder.json))
    info = run_convert(captions=None, split_sizes="train=1.0")
    assert info["splits"]["train"]["images"] == 12
    assert "11 pictures are not in the annotations: kept, without objects" in caplog.text


def test_a_finished_dataset_is_refused_and_untouched(coco_folder, run_convert, shard_bytes):
    run_convert()
    before = shard_bytes(coco_folder.output)
    with pytest.raises(UserError, match="holds a finished dataset.*--overwrite"):
        run_convert(seed=5)
    assert shard_bytes(coco_folder.output) == before


def test_overwriting_replaces_every_shard_and_leaves_other_files_alone(coco_folder, run_convert):
    run_convert(shard_mb=0.02)
    (coco_folder.output / "notes.txt").write_text("mine")
    (coco_folder.output / "train.tfrecord").write_text("mine, too")
    info = run_convert(split_sizes="all=1.0", shard_mb=100, overwrite=True)
    assert list(info["splits"]) == ["all"]
    assert sorted(path.name for path in coco_folder.output.iterdir()) == [
        "all-00000-of-00001.tfrecord",
        "dataset_info.json",
        "notes.txt",
        "rejected.jsonl",
        "train.tfrecord",
    ]


def test_a_mistake_in_the_arguments_does_not_cost_the_old_dataset(coco_folder, run_convert, shard_bytes):
    run_convert()
    before = shard_bytes(coco_folder.output)
    with pytest.raises(UserError):
        run_convert(split_sizes="train=5000", overwrite=True)
    assert shard_bytes(coco_folder.output) == before
    verify(str(coco_folder.output))


def test_remains_of_a_killed_job_are_cleared(coco_folder, run_convert):
    staged = coco_folder.output / "unfinished-job" / "staged"
    staged.mkdir(parents=True)
    (staged / "train-00000-of-00009.tfrecord.abc").write_bytes(b"half")
    (coco_folder.output / "train-00001-of-00009.tfrecord").write_bytes(b"half")
    run_convert()
    assert not staged.exists()
    verify(str(coco_folder.output))


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(coco_folder, run_convert, monkeypatch):
    def breaks(*unused):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("preprocessing.conversion.shards.publish_shard", breaks)
        with pytest.raises(UserError, match="no space left on the disk; make room, .* run the same command again"):
            run_convert()
    assert not (coco_folder.output / "dataset_info.json").exists()
    run_convert()
    verify(str(coco_folder.output))


def test_publishing_a_shard_twice_leads_to_the_same_shard(coco_folder, run_convert, shard_bytes, monkeypatch):
    """Beam's runners may run a bundle again that had succeeded."""
    from preprocessing.conversion import shards

    run_convert(coco_folder.output.with_name("once"))
    publish = shards.publish_shard

    def twice(*arguments):
        publish(*arguments)
        publish(*arguments)

    monkeypatch.setattr(shards, "publish_shard", twice)
    run_convert()
    assert shard_bytes(coco_folder.output) == shard_bytes(coco_folder.output.with_name("once"))


def _written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda json_: '{"images": [{', "not JSON, or cut off"),
        (lambda json_: "pictures: none", "not JSON"),
        (lambda json_: [1, 2], 'no "images" list'),
        (lambda json_: {"images": []}, 'no "images" list, or an empty one'),
        (lambda json_: {**json_, "images": [{"id": 1}]}, "an entry without 'file_name'"),
        (lambda json_: {**json_, "images": ["a.jpg"]}, "not a COCO file"),
        (
            lambda json_: {**json_, "annotations": [{"id": 4, "caption": "A cat."}]},
            'annotation 4 has no "bbox"; captions',
        ),
        (
            lambda json_: {**json_, "annotations": [{**json_["annotations"][0], "bbox": [1, 2]}]},
            "an entry that is wrong",
        ),
        (lambda json_: {**json_, "annotations": [{**json_["annotations"][0], "image_id": 3}]}, 'image 3.*"images"'),
        (lambda json_: {**json_, "categories": []}, '"categories"'),
    ],
)
def test_annotations_that_are_not_coco_are_refused_with_the_files_name(coco_folder, run_convert, change, complaint):
    path = _written(coco_folder.instances, change(coco_folder.json))
    with pytest.raises(UserError, match=complaint) as raised:
        run_convert()
    assert path in str(raised.value) and "\n" not in str(raised.value)
    assert not coco_folder.output.exists()


def test_instances_given_as_captions_are_recognised(coco_folder, run_convert):
    with pytest.raises(UserError, match='no "caption"; instances go to --annotations'):
        run_convert(captions=str(coco_folder.instances))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"annotations": "/nowhere.json"}, "--annotations=/nowhere.json: no such file"),
        ({"shard_mb": 0}, "--shard_mb=0: must be more than 0"),
        ({"check": "some"}, "--check=some"),
        ({"max_rejected_fraction": 1.5}, "must lie between 0 and 1"),
        ({"beam_options": ["stray"]}, "'stray': not a flag"),
        ({"beam_options": ["--runner=Nonsense"]}, "--runner=Nonsense: Unexpected pipeline runner"),
        ({"beam_options": ["--direct_running_mode=fast"]}, "invalid choice: 'fast'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(coco_folder, run_convert, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        run_convert(**changes)
    assert not list(coco_folder.output.glob("*"))


def test_an_empty_folder_and_an_output_among_the_pictures_are_refused(tmp_path, coco_folder, run_convert):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in it"):
        run_convert(images_dir=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="lies within --images_dir"):
        run_convert(coco_folder.images / "out")


def test_an_output_folder_that_cannot_be_made_is_named(coco_folder, run_convert):
    with pytest.raises(UserError, match=f"--output_dir={coco_folder.instances}: cannot be written"):
        run_convert(coco_folder.instances)


def test_preprocessing_does_without_tensorflow():
    """It would cost each Beam worker 300 MB and two seconds."""
    code = "import sys, preprocessing.coco_to_tfrecord, preprocessing.verify; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_schema_does_without_beam():
    code = "import sys, preprocessing.dataset.schema; print('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

"""The command: it brings the archives, once, or says in one line why not."""

import re
import sys

import pytest

from preprocessing.conversion.convert import convert
from preprocessing.downloading import archives
from tests.preprocessing.downloading.archive_server import download_command, is_whole, run, serve


def test_the_command_brings_the_pictures_and_does_nothing_the_second_time(server, archive, pictures, dest):
    command = download_command(archive, f"--dest={dest}", f"--base_url={server.url}/")
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert f"{dest}/val2017: 12 files" in done.stderr
    assert all(bar in done.stderr for bar in ("\nval2017.zip: 100%", "checking val2017.zip", "unpacking val2017.zip"))
    assert is_whole(dest, pictures)
    assert [asked.path for asked in server.asked] == ["/zips/val2017.zip"]
    before = {path: path.stat().st_mtime_ns for path in [dest, *dest.rglob("*")]}
    done = run(command)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"{dest}/val2017: there already"]
    assert {path: path.stat().st_mtime_ns for path in [dest, *dest.rglob("*")]} == before
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dataset=coco-val2017,coco2017", "--dest=x"], "--dataset=coco2017: not known; there are coco-train2017, "),
        (["--dataset=coco-val2017", "--dest=s3://bucket/coco"], "--dest=s3://bucket/coco: not a local folder"),
        (["--dataset=coco-val2017", "--dest=x", "y"], "unexpected argument 'y'"),
        (["--dataset=coco-val2017", f"--dest={__file__}"], f"--dest={__file__}: cannot be written"),
        (["--dataset=coco-val2017"], "--dest"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_1(arguments, complaint):
    done = run([sys.executable, "-m", "preprocessing.download", *arguments])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line


def test_what_was_downloaded_is_converted_as_the_readme_says(server, coco_folder, photographs, tmp_path):
    dest = tmp_path / "downloaded"
    images = {f"train2017/{path.name}": path.read_bytes() for path in photographs}
    texts = {
        "annotations/instances_train2017.json": coco_folder.instances.read_bytes(),
        "annotations/captions_train2017.json": coco_folder.captions.read_bytes(),
    }
    wanted = [
        serve(server, images, "train2017", "zips/train2017.zip"),
        serve(server, texts, "annotations", "annotations/annotations_trainval2017.zip"),
    ]
    archives.download(wanted, str(dest), server.url)
    assert sorted(path.name for path in dest.iterdir()) == ["annotations", "train2017"]
    info = convert(
        str(dest / "train2017"),
        str(tmp_path / "tfrecords"),
        annotations=str(dest / "annotations/instances_train2017.json"),
        captions=str(dest / "annotations/captions_train2017.json"),
    )
    assert info["splits"]["train"]["images"] == 12


def test_cocos_own_files_are_asked_for_where_coco_says_they_are():
    assert {f"{archives.COCO_URL}/{archive.path}" for archive in archives.COCO.values()} == {
        "http://images.cocodataset.org/zips/train2017.zip",
        "http://images.cocodataset.org/zips/val2017.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    }
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in archives.COCO.values())

"""Zips that are not what they should be, and folders that are there already."""

import fcntl
import os
import shutil
import sys

import pytest

from common.command_line import UserError
from preprocessing.downloading import archives
from tests.preprocessing.downloading.archive_server import is_whole, run, serve, zipped


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "val2017/../../evil.jpg", "/{tmp_path}/evil.jpg", "evil.jpg", "test2017/evil.jpg", "val2017"],
)
def test_a_zip_that_would_write_outside_its_folder_is_refused_whole(server, pictures, dest, tmp_path, name):
    archive = serve(server, pictures | {name.format(tmp_path=tmp_path): b"evil"})
    with pytest.raises(UserError, match="outside of val2017/; nothing was unpacked"):
        archives.download([archive], str(dest), server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_zip_with_other_than_the_expected_number_of_files_is_refused(server, archive, dest):
    with pytest.raises(UserError, match="12 files, 13 expected; nothing was unpacked"):
        archives.download([archive._replace(files=13)], str(dest), server.url)
    assert not list(dest.rglob("*.jpg"))


def test_an_entry_whose_crc_is_wrong_leaves_no_folder(server, pictures, dest):
    content = bytearray(zipped(pictures))
    last = pictures["val2017/000000000011.jpg"]
    content[content.index(last) + 1000] ^= 1
    archive = serve(server, pictures, content=bytes(content))
    with pytest.raises(UserError, match=r"val2017.zip: Bad CRC-32 for file .*000000000011.jpg'; delete it"):
        archives.download([archive], str(dest), server.url)
    assert not list(dest.rglob("*.jpg"))


def test_the_zip_is_kept_if_asked_for_and_used_without_being_asked(server, archive, pictures, dest):
    archives.download([archive], str(dest), server.url, keep_zip=True)
    kept = dest / "val2017.zip"
    assert kept.read_bytes() == server.files["/zips/val2017.zip"]
    shutil.rmtree(dest / "val2017")
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1
    assert kept.exists()  # whoever put it there may want it
    kept.unlink()
    assert is_whole(dest, pictures)


def test_a_zip_of_the_users_that_is_cut_off_is_named_and_left_alone(server, archive, dest):
    dest.mkdir()
    (dest / "val2017.zip").write_bytes(server.files["/zips/val2017.zip"][:-5])
    with pytest.raises(UserError, match=f"{dest}/val2017.zip: SHA-256 .*, expected {archive.sha256}: cut off"):
        archives.download([archive], str(dest), server.url)
    assert (dest / "val2017.zip").stat().st_size == archive.bytes - 5
    assert server.asked == [] and [path.name for path in dest.iterdir()] == ["val2017.zip"]


def test_a_folder_that_is_not_whole_is_named_and_an_empty_one_is_filled(server, archive, pictures, dest):
    (dest / "val2017").mkdir(parents=True)
    (dest / "val2017" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{dest}/val2017: 1 files, 12 expected: not the whole of it; move it away"):
        archives.download([archive], str(dest), server.url)
    assert server.asked == []
    (dest / "val2017" / "mine.jpg").unlink()
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)


def test_two_processes_do_not_write_the_same_part(server, archive, dest):
    (dest / "unfinished-val2017").mkdir(parents=True)
    handle = os.open(dest / "unfinished-val2017", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="unfinished-val2017: another process is at work there"):
            archives.download([archive], str(dest), server.url)
    finally:
        os.close(handle)
    assert server.asked == []


def test_downloading_does_without_tensorflow_and_beam():
    code = "import sys, preprocessing.download; print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    assert run([sys.executable, "-c", code]).stdout.strip() == "set()"

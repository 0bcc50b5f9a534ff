"""Room on the disk is asked for first, and a disk that fills up loses nothing."""

import io
import shutil
import zipfile
from types import SimpleNamespace

import pytest

from common.command_line import UserError
from preprocessing.downloading import archives, transfer
from tests.preprocessing.downloading.archive_server import disk_full, has_free, is_whole, part_of, serve


def test_room_for_zip_and_pictures_is_asked_for_before_the_first_byte(server, archive, pictures, dest, monkeypatch):
    needed = archive.bytes + archive.unpacked_bytes
    has_free(monkeypatch, needed - 1)
    with pytest.raises(UserError, match=f"--dest={dest}: .* needed, .* free; make room"):
        archives.download([archive], str(dest), server.url)
    assert server.asked == [] and list(dest.iterdir()) == []
    has_free(monkeypatch, needed)
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)


def test_no_room_is_asked_for_what_is_there_already(server, archive, pictures, dest, monkeypatch):
    server.cuts = [300_000, *[0] * 5]
    with pytest.raises(UserError, match="again and again"):
        archives.download([archive], str(dest), server.url)
    missing = archive.bytes - part_of(dest).stat().st_size + archive.unpacked_bytes
    has_free(monkeypatch, missing - 1)
    with pytest.raises(UserError, match="make room"):
        archives.download([archive], str(dest), server.url)
    has_free(monkeypatch, missing)
    server.cuts = []
    archives.download([archive], str(dest), server.url)
    has_free(monkeypatch, 0)
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)


def test_what_an_interrupted_run_had_unpacked_does_not_take_room_from_the_next(
    server, archive, pictures, dest, monkeypatch
):
    extract, extracted = zipfile.ZipFile.extract, []

    def interrupted(file, entry, folder):
        if len(extracted) == 9:
            raise KeyboardInterrupt
        extracted.append(extract(file, entry, folder))

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            archives.download([archive], str(dest), server.url)
    assert len(list(dest.rglob("*.jpg"))) == 8
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: SimpleNamespace(
            free=archive.unpacked_bytes - sum(picture.stat().st_size for picture in dest.rglob("*.jpg"))
        ),
    )
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1 and is_whole(dest, pictures)


@pytest.mark.parametrize("keep_zip", [False, True])
def test_room_is_asked_for_all_that_is_wanted_at_once(server, archive, dest, monkeypatch, keep_zip):
    other = serve(server, {"texts/a.json": b"{}" * 400_000}, "texts", "texts.zip")
    # The first zip is gone when the second comes, unless it is kept.
    needed = archive.unpacked_bytes + other.unpacked_bytes + other.bytes + (archive.bytes if keep_zip else 0)
    has_free(monkeypatch, needed - 1)
    with pytest.raises(UserError, match="make room"):
        archives.download([archive, other], str(dest), server.url, keep_zip)
    assert server.asked == []
    has_free(monkeypatch, needed)
    archives.download([archive, other], str(dest), server.url, keep_zip)
    assert len(server.asked) == 2


def test_a_disk_that_fills_up_while_downloading_is_said_and_what_has_come_is_kept(
    server, archive, pictures, dest, monkeypatch
):
    class Full(io.FileIO):
        def write(self, data):
            return super().write(data) if self.tell() < 100_000 else disk_full()

    with monkeypatch.context() as patch:
        patch.setattr(
            transfer,
            "open",
            lambda path, mode, **rest: Full(path, mode) if mode == "ab" else open(path, mode, **rest),
            raising=False,
        )
        with pytest.raises(UserError, match=f"--dest={dest}: no space left on the disk; make room"):
            archives.download([archive], str(dest), server.url)
    come = part_of(dest).stat().st_size
    assert come >= 100_000
    archives.download([archive], str(dest), server.url)
    assert server.asked[-1].start == come and is_whole(dest, pictures)


def test_a_disk_that_fills_up_while_unpacking_leaves_the_zip_alone_and_no_picture(
    server, archive, pictures, dest, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", disk_full)  # what zipfile writes with
        with pytest.raises(UserError, match="no space left on the disk"):
            archives.download([archive], str(dest), server.url)
    assert [path.name for path in dest.iterdir()] == ["unfinished-val2017"]
    assert not list(dest.rglob("*.jpg"))
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1 and is_whole(dest, pictures)

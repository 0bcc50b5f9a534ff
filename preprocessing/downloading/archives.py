"""Downloads published zip archives and unpacks each into a folder: the library behind `preprocessing.download`.

    from preprocessing.downloading import archives

    archives.download([archives.COCO["coco-val2017"]], "coco")

During the download, DEST holds

    DEST/
      unfinished-val2017/
        val2017.zip.part            downloaded so far, see `transfer`
        val2017.zip.part.version
        val2017.zip                 complete, SHA-256 verified
        val2017/                    being unpacked

Each step starts from what the previous one left, so a killed run only needs to be run again. The complete unpacked
folder is renamed to DEST/val2017, and only then is `unfinished-val2017` deleted. Nothing else in DEST is ever deleted.
A DEST/val2017.zip comes from the user or from `keep_zip`, and is used if its SHA-256 is right.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from common.command_line import UserError
from preprocessing.downloading import transfer

_LOG = logging.getLogger(__name__)

COCO_URL = "http://images.cocodataset.org"


class Archive(NamedTuple):
    """A zip file with known content, all of it in one folder.

    Attributes:
      path: path below the server's base URL; ends in the zip's name.
      sha256: SHA-256 of the zip, hexadecimal.
      bytes: size of the zip.
      folder: the top-level folder in the zip.
      files: number of files in `folder`.
      unpacked_bytes: disk space that `folder` takes, rounded up; used to check for free space.
    """

    path: str
    sha256: str
    bytes: int
    folder: str
    files: int
    unpacked_bytes: int


# COCO publishes no checksums. SHA-256 and sizes are those that TensorFlow Datasets recorded from COCO's server
# (tensorflow/datasets, url_checksums/coco.txt); torchvision (prototype/datasets/_builtin/coco.py) has the same SHA-256.
# The images are JPEGs: unpacked, they take 2 % more space, of which 0.5 % is what zip had saved (measured on 482 files)
# and the rest half a disk block per file. The six JSON files total 834,416,290 bytes.
COCO = {
    "coco-train2017": Archive(
        path="zips/train2017.zip",
        sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        bytes=19_336_861_798,
        folder="train2017",
        files=118_287,
        unpacked_bytes=20_000_000_000,
    ),
    "coco-val2017": Archive(
        path="zips/val2017.zip",
        sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        bytes=815_585_330,
        folder="val2017",
        files=5_000,
        unpacked_bytes=850_000_000,
    ),
    "coco-annotations2017": Archive(
        path="annotations/annotations_trainval2017.zip",
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        bytes=252_907_541,
        folder="annotations",
        files=6,
        unpacked_bytes=840_000_000,
    ),
}


class _Places:
    """The paths of an archive's files, below DEST."""

    def __init__(self, archive: Archive, dest: str) -> None:
        name = os.path.basename(archive.path)
        self.folder = os.path.join(dest, archive.folder)
        self.kept_zip = os.path.join(dest, name)
        self.unfinished = os.path.join(dest, f"unfinished-{archive.folder}")
        self.zip = os.path.join(self.unfinished, name)
        self.part = transfer.Part(f"{self.zip}.part")
        self.unpacked = os.path.join(self.unfinished, archive.folder)


def download(wanted: Sequence[Archive], dest: str, base_url: str = COCO_URL, keep_zip: bool = False) -> None:
    """Downloads and unpacks archives; resumes an interrupted run and skips complete folders.

    Args:
      wanted: the archives, processed in this order.
      dest: local folder, created if missing; DEST/FOLDER appears for each archive once it is complete.
      base_url: the server's URL, to which `Archive.path` is relative.
      keep_zip: leave the zips in `dest`.

    Raises:
      UserError: there is no space, no such file or no connection, or the content is wrong. Partial downloads are kept
        unless their content is wrong.
    """
    if "://" in dest:
        raise UserError(f"--dest={dest}: not a local folder; download to a disk, and copy the folder from there")
    dest = os.path.abspath(os.path.expanduser(dest))
    try:
        os.makedirs(dest, exist_ok=True)
        for index, archive in enumerate(wanted):
            places = _Places(archive, dest)
            if _is_there(archive, places) and not os.path.exists(places.unfinished):
                _LOG.info("%s: there already", places.folder)
                continue
            with _alone(places.unfinished):
                if not _is_there(archive, places):
                    _clear_unpacked(places)  # left by a killed run; its space counts as free
                    _ask_for_room(wanted[index:], dest, keep_zip)
                    _obtain(archive, places, f"{base_url.rstrip('/')}/{archive.path}", keep_zip)
                shutil.rmtree(places.unfinished)
            _LOG.info("%s: %d files", places.folder, archive.files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"--dest={dest}: no space left on the disk; make room and run the same command again, it goes on from "
                "there"
            ) from None
        raise UserError(f"--dest={dest}: cannot be written: {error}") from None


def _is_there(archive: Archive, places: _Places) -> bool:
    try:
        if not os.listdir(places.folder):
            return False
    except FileNotFoundError:
        return False
    found = sum(len(files) for _, _, files in os.walk(places.folder))
    if found < archive.files:
        raise UserError(
            f"{places.folder}: {found} files, {archive.files} expected: not the whole of it; move it away and run the "
            "same command again"
        )
    return True


@contextlib.contextmanager
def _alone(unfinished: str) -> Iterator[None]:
    """Locks the folder, as two processes appending to one part would corrupt it. The lock dies with the process."""
    os.makedirs(unfinished, exist_ok=True)
    handle = os.open(unfinished, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{unfinished}: another process is at work there; wait until it has ended") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(unfinished)  # succeeds only if it is empty: nothing was downloaded yet
    finally:
        os.close(handle)


def _ask_for_room(wanted: Sequence[Archive], dest: str, keep_zip: bool) -> None:
    """Raises UserError if free disk space does not suffice, before 19 GB are downloaded rather than after."""
    needed = held = 0
    for archive in wanted:
        places = _Places(archive, dest)
        if _is_there(archive, places):
            continue
        have_zip = os.path.exists(places.zip) or os.path.exists(places.kept_zip)
        to_come = 0 if have_zip else archive.bytes - places.part.size
        needed = max(needed, held + to_come + archive.unpacked_bytes)
        held += archive.unpacked_bytes + (to_come if keep_zip else 0)
    free = shutil.disk_usage(dest).free
    if free < needed:
        raise UserError(
            f"--dest={dest}: {tqdm.format_sizeof(needed, 'B')} needed, zips and unpacked files together, "
            f"{tqdm.format_sizeof(free, 'B')} free; make room, or name a folder on another disk"
        )


def _obtain(archive: Archive, places: _Places, url: str, keep_zip: bool) -> None:
    if os.path.exists(places.kept_zip):
        found = _sha256(places.kept_zip)
        if found != archive.sha256:
            raise UserError(
                f"{places.kept_zip}: SHA-256 {found}, expected {archive.sha256}: cut off, or another file; move it "
                "away and run the same command again"
            )
        _unpack(archive, places.kept_zip, places)
    else:
        if not os.path.exists(places.zip):
            transfer.fetch(url, places.part, archive.bytes)
            found = _sha256(places.part.path)
            if found != archive.sha256:
                places.part.discard()
                raise UserError(
                    f"{url}: SHA-256 {found}, expected {archive.sha256}; the file was deleted, nothing unpacked; run "
                    "the same command again, or with another --base_url"
                )
            os.rename(places.part.path, places.zip)
        _unpack(archive, places.zip, places)
        if keep_zip:
            os.rename(places.zip, places.kept_zip)
    os.sync()  # so that a power failure cannot leave the name without the bytes
    os.rename(places.unpacked, places.folder)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    size, name = os.path.getsize(path), os.path.basename(path)
    with open(path, "rb") as file, tqdm(total=size, desc=f"checking {name}", unit="B", unit_scale=True) as bar:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _clear_unpacked(places: _Places) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(places.unpacked)


def _unpack(archive: Archive, path: str, places: _Places) -> None:
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            _check_names(archive, path, entries)
            size, name = sum(entry.file_size for entry in entries), os.path.basename(path)
            with tqdm(total=size, desc=f"unpacking {name}", unit="B", unit_scale=True) as bar:
                for entry in entries:
                    file.extract(entry, places.unfinished)  # verifies the entry's CRC-32
                    bar.update(entry.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        _clear_unpacked(places)
        raise UserError(f"{path}: {error}; delete it and run the same command again") from None
    except OSError:
        _clear_unpacked(places)  # frees space, as the usual cause is a full disk
        raise


def _check_names(archive: Archive, path: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raises UserError unless all entries are inside the archive's one folder, because a zip can name any path."""
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        within = len(parts) > 1 or entry.is_dir()
        if parts[:1] != (archive.folder,) or ".." in parts or not within:
            raise UserError(f"{path}: holds {entry.filename!r}, outside of {archive.folder}/; nothing was unpacked")
    files = sum(not entry.is_dir() for entry in entries)
    if files != archive.files:
        raise UserError(f"{path}: {files} files, {archive.files} expected; nothing was unpacked")

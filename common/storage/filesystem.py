"""Files, local or in object storage, through Beam's file systems.

Everything here takes a local path or a URL of a scheme that the installed Beam knows (s3://, gs://, hdfs://).
`preprocessing` touches no file except through this module and `schema`.
"""

import contextlib
import glob
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any, BinaryIO, Callable, NamedTuple, Optional, TypeVar

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from common.command_line import UserError
from common.storage import s3

# The remedy where Beam was installed without a scheme's file system.
_EXTRAS = {"s3": "aws", "gs": "gcp", "hdfs": "hadoop", "azfs": "azure"}

s3.keep_clients()
if FileSystems._pipeline_options is None:  # S3's file system wants some, be they empty
    FileSystems.set_options(PipelineOptions([]))

_BYTES = "application/octet-stream"
_PARTIAL = ".partial"
_REQUESTS = 16  # to an object store at once

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


class FileDoFn(beam.DoFn):
    """A DoFn that reaches object storage as the main process does.

    Beam's own workers know the pipeline's options; DaskRunner runs DoFns in processes that were never told.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options.get_all_options(drop_default=True)

    def setup(self) -> None:
        FileSystems.set_options(PipelineOptions.from_dictionary(self._options))


class File(NamedTuple):
    """A file below a folder: `name` relative to it, with /, its size in bytes, and when it was written.

    `updated` is in seconds since 1970, by the clock of whoever keeps the file.
    """

    name: str
    size: int
    updated: float = 0.0


def absolute(path: str) -> str:
    """Makes a local path absolute, because a worker's current folder may be another; a URL stays as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def check(path: str, flag: str = "", listed: bool = True) -> None:
    """Finds out whether a path's file system can be reached at all.

    Args:
      path: a path or URL; there need not be anything.
      flag: that the user gave the path by, if any, such as "--images_dir".
      listed: whether being allowed to list it is needed.

    Raises:
      UserError: there is no such file system here, or it cannot be reached.
    """
    scheme = path.partition("://")[0] if "://" in path else ""
    named = f"{flag}={path}" if flag else path
    try:
        filesystem = FileSystems.get_filesystem(path)
    except ValueError:
        known = ", ".join(f"{name}://" for name in _EXTRAS)
        remedy = f"pip install 'apache-beam[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else f"Beam knows {known}"
        raise UserError(f"{named}: no file system for {scheme}:// here; {remedy}") from None
    fault = s3.fault(path, filesystem, listed) if scheme == "s3" else ""
    if fault:
        raise UserError(f"{named}: cannot be read: {fault}")


def join(directory: str, *names: str) -> str:
    """The path of a file below a folder or URL."""
    return FileSystems.join(directory, *names)


def exists(path: str) -> bool:
    """Whether there is a file (or a local folder) of this path."""
    return FileSystems.exists(path)


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file as it is. Beam would otherwise unpack by the name: pictures called x.gz are bytes to us too."""
    return FileSystems.open(path, _BYTES, CompressionTypes.UNCOMPRESSED)


def open_for_writing(path: str) -> BinaryIO:
    """Creates or replaces a file, and the local folders above it."""
    return FileSystems.create(path, _BYTES, CompressionTypes.UNCOMPRESSED)


def read_bytes(path: str) -> bytes:
    """Reads a whole file."""
    with open_for_reading(path) as file:
        return file.read()


def reader(directory: str) -> Callable[[str], bytes]:
    """Returns a function that reads whole files below a folder, by name.

    It looks Beam's file system up once. Done for every picture, looking it up takes longer than reading the file.
    """
    filesystem = FileSystems.get_filesystem(directory)

    def read(name: str) -> bytes:
        with filesystem.open(filesystem.join(directory, name), _BYTES, CompressionTypes.UNCOMPRESSED) as file:
            return file.read()

    return read


@contextlib.contextmanager
def create_whole(path: str, scratch: Optional[str] = None) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name, or replaces what was there, once it is written to the end.

    Where there are folders, it is written under another name first, which `is_partial` knows, and renamed. An object
    store shows an object only when it is complete.

    Args:
      path: the file.
      scratch: the folder, on the same disk, for the unfinished file; default the file's own.
    """
    filesystem = FileSystems.get_filesystem(path)
    if not filesystem.has_dirs():
        file = open_for_writing(path)
        try:
            yield file
        except BaseException:
            file.close()  # which makes an object of what there is
            delete([path])
            raise
        if filesystem.scheme() == "s3" and not file.tell():
            s3.close_empty(file, path, filesystem)
        else:
            file.close()
        return
    # Without the file's own name, which may be as long as a disk allows.
    temporary = join(scratch or FileSystems.split(path)[0], f".{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open_for_writing(temporary) as file:
            yield file
        rename(temporary, path)
    except BaseException:
        delete([temporary])
        raise


def is_partial(name: str) -> bool:
    """Whether a file is one that `create_whole` had not finished when its process was killed."""
    return re.search(rf"\.[0-9a-f]{{32}}{re.escape(_PARTIAL)}$", name) is not None


def write_text(path: str, text: str, scratch: Optional[str] = None) -> None:
    """Writes a whole file; see `create_whole`."""
    with create_whole(path, scratch) as file:
        file.write(text.encode("utf-8"))


def read_json(path: str) -> Any:
    """Reads a JSON file of ours."""
    return json.loads(read_bytes(path))


def write_json(path: str, content: Any, indent: int = 2, scratch: Optional[str] = None) -> None:
    """Writes a JSON file whole; see `create_whole`."""
    write_text(path, json.dumps(content, indent=indent or None) + "\n", scratch)


def rename(source: str, destination: str) -> None:
    """Moves a file; what was at `destination` is replaced, on a local disk in one step."""
    FileSystems.rename([source], [destination])


def list_files(directory: str, recursive: bool = True) -> Iterator[File]:
    """Lists the files below a folder, in no particular order; nothing where there is no such folder.

    A local folder that is reached only by a symbolic link below `directory` is not entered.
    """
    # The trailing separator keeps /data/coco from listing /data/coco2 as well.
    prefix = os.path.join(directory, "")
    # What `FileSystems.match` calls. It would return a list: gigabytes, where there are ten million files.
    for metadata in FileSystems.get_filesystem(prefix)._list(prefix):
        name = metadata.path[len(prefix) :].replace(os.sep, "/")
        # Object stores may hold an empty object for the "folder" itself.
        if name and (recursive or "/" not in name):
            yield File(name, metadata.size_in_bytes, metadata.last_updated_in_seconds)


def list_prefix(prefix: str) -> list[str]:
    """Lists the files of one folder whose paths begin like this; in an object store, without listing the others."""
    pattern = glob.escape(prefix) + "*"
    if "://" not in prefix:  # Beam would walk through all folders below
        return glob.glob(pattern)
    return [found.path for found in FileSystems.match([pattern])[0].metadata_list]


def file_size(path: str) -> int:
    """The size of a file in bytes."""
    return FileSystems.match([glob.escape(path)])[0].metadata_list[0].size_in_bytes


def delete(paths: list[str]) -> None:
    """Deletes files; one that is gone already is no error."""
    if not paths:
        return
    filesystem = FileSystems.get_filesystem(paths[0])
    if filesystem.has_dirs():  # object stores do not mind
        paths = [path for path in paths if exists(path)]
    if filesystem.scheme() != "s3":  # which takes names, the others patterns
        paths = [glob.escape(path) for path in paths]
    FileSystems.delete(paths)


def delete_tree(directory: str) -> None:
    """Deletes a folder and all below it; one that is gone already is no error."""
    if not FileSystems.get_filesystem(directory).has_dirs():
        FileSystems.delete([join(directory, "")])
        return
    try:
        delete([directory])
    except BeamIOError:
        # A worker that has lost its job may have put a file there in between.
        delete([directory])


def map_files(function: Callable[[_Item], _Result], items: Iterable[_Item], directory: str) -> Iterator[_Result]:
    """Calls a function that reads or writes a small file below `directory` for each item; results in their order.

    Several at a time where each call is a journey; of the items, only a few are taken ahead.
    """
    if "://" not in directory:
        yield from map(function, items)
        return
    items = iter(items)
    with futures.ThreadPoolExecutor(_REQUESTS) as threads:
        while batch := list(itertools.islice(items, 4 * _REQUESTS)):
            yield from threads.map(function, batch)

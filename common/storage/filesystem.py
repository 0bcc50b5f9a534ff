"""Files, local or in object storage, through Beam's file systems.

Paths may be local, or URLs with a scheme that the installed Beam supports (s3://, gs://, hdfs://).
`preprocessing` accesses files only through this module and `schema`.
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

# URL scheme -> the Beam extra that provides its file system.
_EXTRAS = {"s3": "aws", "gs": "gcp", "hdfs": "hadoop", "azfs": "azure"}

s3.keep_clients()
if FileSystems._pipeline_options is None:  # S3's file system needs options, even if empty
    FileSystems.set_options(PipelineOptions([]))

_BYTES = "application/octet-stream"
_PARTIAL = ".partial"
_REQUESTS = 16  # concurrent requests to an object store

_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


class FileDoFn(beam.DoFn):
    """A DoFn that accesses object storage with the same options as the main process.

    Beam's own workers know the pipeline's options, but DaskRunner runs DoFns in processes that do not.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options.get_all_options(drop_default=True)

    def setup(self) -> None:
        FileSystems.set_options(PipelineOptions.from_dictionary(self._options))


class File(NamedTuple):
    """A file below a folder.

    Attributes:
      name: path relative to the folder, with /.
      size: in bytes.
      updated: time of last modification, seconds since 1970, by the clock of the machine that stores the file.
    """

    name: str
    size: int
    updated: float = 0.0


def absolute(path: str) -> str:
    """Makes a local path absolute, because a worker's current folder may differ; leaves a URL unchanged."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def check(path: str, flag: str = "", listed: bool = True) -> None:
    """Checks that a path's file system can be reached.

    Args:
      path: a path or URL; it need not exist.
      flag: the flag by which the user gave the path, such as "--images_dir", if any.
      listed: whether permission to list the path is needed.

    Raises:
      UserError: the file system is not installed or cannot be reached.
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
    """Returns the path of a file below a folder or URL."""
    return FileSystems.join(directory, *names)


def exists(path: str) -> bool:
    """Returns whether a file (or local folder) exists at this path."""
    return FileSystems.exists(path)


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file without decompression, which Beam would otherwise choose by name (an image may be called x.gz)."""
    return FileSystems.open(path, _BYTES, CompressionTypes.UNCOMPRESSED)


def open_for_writing(path: str) -> BinaryIO:
    """Creates or replaces a file; creates missing local parent folders."""
    return FileSystems.create(path, _BYTES, CompressionTypes.UNCOMPRESSED)


def read_bytes(path: str) -> bytes:
    """Reads a whole file."""
    with open_for_reading(path) as file:
        return file.read()


def reader(directory: str) -> Callable[[str], bytes]:
    """Returns a function that reads whole files below a folder, by name.

    It looks up Beam's file system only once, because the lookup takes longer than reading an image.
    """
    filesystem = FileSystems.get_filesystem(directory)

    def read(name: str) -> bytes:
        with filesystem.open(filesystem.join(directory, name), _BYTES, CompressionTypes.UNCOMPRESSED) as file:
            return file.read()

    return read


@contextlib.contextmanager
def create_whole(path: str, scratch: Optional[str] = None) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears at its path, replacing any existing file, only once it is complete.

    In a file system with folders, it is first written under a temporary name (see `is_partial`) and then renamed. An
    object store shows only complete objects.

    Args:
      path: the file's path.
      scratch: folder for the unfinished file, on the same disk; defaults to the file's own folder.
    """
    filesystem = FileSystems.get_filesystem(path)
    if not filesystem.has_dirs():
        file = open_for_writing(path)
        try:
            yield file
        except BaseException:
            file.close()  # which creates an object from what was written
            delete([path])
            raise
        if filesystem.scheme() == "s3" and not file.tell():
            s3.close_empty(file, path, filesystem)
        else:
            file.close()
        return
    # The file's own name is left out, as it may already be as long as the disk allows.
    temporary = join(scratch or FileSystems.split(path)[0], f".{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open_for_writing(temporary) as file:
            yield file
        rename(temporary, path)
    except BaseException:
        delete([temporary])
        raise


def is_partial(name: str) -> bool:
    """Returns whether a file's name is that of a temporary file which a killed `create_whole` left behind."""
    return re.search(rf"\.[0-9a-f]{{32}}{re.escape(_PARTIAL)}$", name) is not None


def write_text(path: str, text: str, scratch: Optional[str] = None) -> None:
    """Writes a UTF-8 text file that appears only once complete; `scratch` as in `create_whole`."""
    with create_whole(path, scratch) as file:
        file.write(text.encode("utf-8"))


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    return json.loads(read_bytes(path))


def write_json(path: str, content: Any, indent: int = 2, scratch: Optional[str] = None) -> None:
    """Writes a JSON file that appears only once complete; `scratch` as in `create_whole`."""
    write_text(path, json.dumps(content, indent=indent or None) + "\n", scratch)


def rename(source: str, destination: str) -> None:
    """Moves a file, replacing any at `destination`; atomic on a local disk."""
    FileSystems.rename([source], [destination])


def list_files(directory: str, recursive: bool = True) -> Iterator[File]:
    """Yields the files below a folder, in no particular order; none if the folder does not exist.

    Symbolic links to local folders below `directory` are not followed.
    """
    # The trailing separator keeps /data/coco from listing /data/coco2 as well.
    prefix = os.path.join(directory, "")
    # `FileSystems.match` calls this too, but returns a list: gigabytes for ten million files.
    for metadata in FileSystems.get_filesystem(prefix)._list(prefix):
        name = metadata.path[len(prefix) :].replace(os.sep, "/")
        # Object stores may hold an empty object for the "folder" itself.
        if name and (recursive or "/" not in name):
            yield File(name, metadata.size_in_bytes, metadata.last_updated_in_seconds)


def list_prefix(prefix: str) -> list[str]:
    """Lists the files of one folder whose paths begin with `prefix`; an object store lists no others."""
    pattern = glob.escape(prefix) + "*"
    if "://" not in prefix:  # Beam would walk through all subfolders
        return glob.glob(pattern)
    return [found.path for found in FileSystems.match([pattern])[0].metadata_list]


def file_size(path: str) -> int:
    """Returns the size of a file in bytes."""
    return FileSystems.match([glob.escape(path)])[0].metadata_list[0].size_in_bytes


def delete(paths: list[str]) -> None:
    """Deletes files; it is no error if one is already gone."""
    if not paths:
        return
    filesystem = FileSystems.get_filesystem(paths[0])
    if filesystem.has_dirs():  # object stores ignore missing objects
        paths = [path for path in paths if exists(path)]
    if filesystem.scheme() != "s3":  # which takes names; the others take patterns
        paths = [glob.escape(path) for path in paths]
    FileSystems.delete(paths)


def delete_tree(directory: str) -> None:
    """Deletes a folder and everything below it; it is no error if it is already gone."""
    if not FileSystems.get_filesystem(directory).has_dirs():
        FileSystems.delete([join(directory, "")])
        return
    try:
        delete([directory])
    except BeamIOError:
        # A worker whose job has ended may have created a file there in the meantime.
        delete([directory])


def map_files(function: Callable[[_Item], _Result], items: Iterable[_Item], directory: str) -> Iterator[_Result]:
    """Calls a function that reads or writes a small file below `directory` for each item; yields results in order.

    If `directory` is a URL, calls run concurrently, because each is a network round trip; only a few items are taken in
    advance.
    """
    if "://" not in directory:
        yield from map(function, items)
        return
    items = iter(items)
    with futures.ThreadPoolExecutor(_REQUESTS) as threads:
        while batch := list(itertools.islice(items, 4 * _REQUESTS)):
            yield from threads.map(function, batch)

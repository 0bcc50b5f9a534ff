"""Files, local or in object storage, through Beam's file systems.

Everything here takes a local path or a URL of a scheme that the installed Beam knows (s3://, gs://, hdfs://).
`preprocessing` touches no file except through this module and `schema`.
"""

import glob
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

_BYTES = "application/octet-stream"


class FileDoFn(beam.DoFn):
    """A DoFn that reaches object storage as the main process does.

    Beam's own workers know the pipeline's options; DaskRunner runs DoFns in processes that were never told.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options.get_all_options(drop_default=True)

    def setup(self) -> None:
        FileSystems.set_options(PipelineOptions.from_dictionary(self._options))


class File(NamedTuple):
    """A file below a folder: `name` relative to it, with /, and its size in bytes."""

    name: str
    size: int


def absolute(path: str) -> str:
    """Makes a local path absolute, because a worker's current folder may be another; a URL stays as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


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


def write_text(path: str, text: str) -> None:
    """Writes a whole file under another name and renames it, so that it is never seen half-written."""
    temporary = f"{path}.tmp"
    with open_for_writing(temporary) as file:
        file.write(text.encode("utf-8"))
    rename(temporary, path)


def read_json(path: str) -> Any:
    """Reads a JSON file of ours."""
    return json.loads(read_bytes(path))


def write_json(path: str, content: Any, indent: int = 2) -> None:
    """Writes a JSON file whole."""
    write_text(path, json.dumps(content, indent=indent or None) + "\n")


def rename(source: str, destination: str) -> None:
    """Moves a file; what was at `destination` is replaced, on a local disk in one step."""
    FileSystems.rename([source], [destination])


def list_files(directory: str, recursive: bool = True) -> Iterator[File]:
    """Lists the files below a folder, in no particular order; nothing where there is no such folder.

    A local folder that is reached only by a symbolic link below `directory` is not entered.
    """
    # The trailing separator keeps /data/coco from listing /data/coco2 as well.
    prefix = os.path.join(directory, "")
    pattern = glob.escape(prefix) + ("**" if recursive else "*")
    for match in FileSystems.match([pattern]):
        for metadata in match.metadata_list:
            name = metadata.path[len(prefix) :]
            if name:  # object stores may hold an empty object for the "folder" itself
                yield File(name.replace(os.sep, "/"), metadata.size_in_bytes)


def file_size(path: str) -> int:
    """The size of a file in bytes."""
    return FileSystems.match([glob.escape(path)])[0].metadata_list[0].size_in_bytes


def delete(paths: list[str]) -> None:
    """Deletes files; one that is gone already is no error."""
    present = [path for path in paths if exists(path)]
    if present:
        FileSystems.delete([glob.escape(path) for path in present])


def delete_tree(directory: str) -> None:
    """Deletes a folder and all below it; one that is gone already is no error."""
    delete([join(directory, file.name) for file in list_files(directory)])
    try:
        delete([directory])  # the empty local folders; object stores have none
    except BeamIOError:
        if exists(directory):
            raise

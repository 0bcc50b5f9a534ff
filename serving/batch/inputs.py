"""Finds the images that a user means by a folder or a pattern, and their names in the output.

    photos                     all images in the folder and its subfolders
    photos/*.jpg               Beam patterns: `*` matches within a folder,
    s3://bucket/photos/**      `**` also in subfolders,
    photos/202?/*.png          `?` matches one character, `[0-9]` one of several
    photos/0001.jpg            one image

Output names are relative to the last folder before the first `*`, `?` or `[`.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from common import images
from common.command_line import UserError
from common.storage import filesystem
from serving.restoring import untouched_pictures


class Pictures(NamedTuple):
    """The images found.

    Attributes:
      folder: absolute path or URL.
      names: sorted names relative to `folder`, with /.
      others: number of files without an image suffix.
    """

    folder: str
    names: list[str]
    others: int


def find_pictures(pattern: str, output: str) -> Pictures:
    """Lists the images to restore; skips hidden files and files in the output.

    Args:
      pattern: folder, pattern or image, or its URL; see the module's docstring.
      output: folder or URL of the results.

    Raises:
      UserError: no image found, or the output is the folder of the originals or contains it.
    """
    path = filesystem.absolute(pattern).rstrip("/")
    # An existing local path is taken literally, even if it is called "photos [2024]".
    is_pattern = re.search(r"[*?[]", path) and ("://" in path or not os.path.exists(path))
    folder, files = (_match if is_pattern else _list)(path)
    names = [name for name in files if not _is_within(name, _inside(folder, output))]
    names = [
        name for name in names if not name.rpartition("/")[2].startswith(".") and not untouched_pictures.is_list(name)
    ]
    pictures = [name for name in names if images.is_image_name(name)]
    if not names:
        hint = "`*` stays within a folder, `**` goes below" if is_pattern else "name a folder, a picture or a pattern"
        raise UserError(f"--input={pattern}: nothing there; {hint}")
    if not pictures:
        raise UserError(f"--input={pattern}: no pictures there ({images.listed_suffixes()})")
    return Pictures(folder, sorted(pictures), len(names) - len(pictures))


def _match(pattern: str) -> tuple[str, list[str]]:
    folder = re.match(r"[^*?[]*", pattern)[0].rpartition("/")[0] or "/"
    start = len(os.path.join(folder, ""))
    return folder, [found.path[start:] for found in FileSystems.match([pattern])[0].metadata_list]


def _list(path: str) -> tuple[str, list[str]]:
    names = [file.name for file in filesystem.list_files(path)]
    if not names and filesystem.exists(path) and not os.path.isdir(path):
        folder, _, name = path.rpartition("/")
        return folder or "/", [name]
    return path, names


def _inside(folder: str, output: str) -> str | None:
    """Returns the output's path relative to the input, or None if it lies elsewhere."""
    source, target = (os.path.join(path if "://" in path else os.path.realpath(path), "") for path in (folder, output))
    if source.startswith(target):
        raise UserError(
            f"--output={output}: holds the originals, or a folder of them; name another for the restored pictures"
        )
    return target[len(source) :] if target.startswith(source) else None


def _is_within(name: str, folder: str | None) -> bool:
    return folder is not None and name.startswith(folder)

"""Restores uploaded images as the client would, several at a time, and makes smaller copies for a page to compare."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

import numpy as np
from PIL import Image

from serving.restoring import photo
from serving.restoring.folder import restore_photo
from serving.restoring.remote import Refused, Restorer

_IN_FLIGHT = 4  # concurrent requests, like the client's default --in_flight
_SHOWN_SIDE, _THUMBNAIL_SIDE = 2048, 256  # maximum side in pixels


@dataclasses.dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
      name: the user's name for it; arbitrary, not necessarily unique.
      path: where the file is stored.
    """

    name: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An image that a model has processed.

    Attributes:
      name: file name, unique within the run.
      untouched: why the model left it unchanged, see `untouched_pictures`; None for a restored image.
      restored: the file that the client would have written.
      before, after: upright JPEGs of equal size for the page; scaled down if the image is large.
      thumbnail: a small version of `after`.
    """

    name: str
    untouched: str | None
    restored: pathlib.Path
    before: pathlib.Path
    after: pathlib.Path
    thumbnail: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image that could not be restored; the reason is one line."""

    name: str
    reason: str


def restore_uploads(
    restorer: Restorer, uploads: Sequence[Upload], folder: pathlib.Path
) -> Iterator[Comparison | Failure]:
    """Restores images; a failed image does not stop the others.

    Args:
      restorer: the connection.
      uploads: the images.
      folder: an empty folder for the files that this makes.

    Yields:
      The result for each image, in the order given.

    Raises:
      UserError: no server, or the server does not have this model.
    """
    names = unique_names(upload.name for upload in uploads)
    for made in ("restored", "before", "after", "thumbnail"):
        (folder / made).mkdir()
    executor = futures.ThreadPoolExecutor(_IN_FLIGHT)
    try:
        jobs = [
            executor.submit(_restore, restorer, upload.path, folder, name, number)
            for number, (name, upload) in enumerate(zip(names, uploads))
        ]
        for name, job in zip(names, jobs):
            try:
                yield job.result()
            except (Refused, photo.UnreadablePhoto, OSError, ValueError) as error:
                yield Failure(name, str(error))
    finally:
        executor.shutdown(cancel_futures=True)


def unique_names(names: Iterable[str]) -> list[str]:
    """Strips folders and makes names unique: a second `a.jpg` becomes `a-2.jpg`; `A.jpg` counts as `a.jpg`."""
    taken: set[str] = set()
    unique = []
    for name in names:
        # Keep only what follows the last slash: the name comes from a browser and must not escape our folder.
        path = pathlib.PurePath(pathlib.PurePosixPath(name.replace("\\", "/")).name)
        if path.name in ("", ".", ".."):
            path = pathlib.PurePath("picture")
        candidate, number = path.name, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{path.stem}-{number}{path.suffix}"
        taken.add(candidate.casefold())
        unique.append(candidate)
    return unique


def pack(comparisons: Sequence[Comparison], path: pathlib.Path) -> None:
    """Writes the restored files to a zip archive, uncompressed: images would not get smaller."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for comparison in comparisons:
            archive.write(comparison.restored, comparison.name)


def _restore(restorer: Restorer, source: pathlib.Path, folder: pathlib.Path, name: str, number: int) -> Comparison:
    result = restore_photo(restorer, source)
    comparison = Comparison(
        name,
        result.untouched,
        folder / "restored" / name,
        *(folder / made / f"{number}.jpg" for made in ("before", "after", "thumbnail")),
    )
    before = result.photo.request  # upright, unlike the file that an untouched image is a copy of
    after = before if result.untouched else result.content
    _show(before, comparison.before, _SHOWN_SIDE)
    _show(after, comparison.after, _SHOWN_SIDE)
    _show(after, comparison.thumbnail, _THUMBNAIL_SIDE)
    comparison.restored.write_bytes(result.content)
    return comparison


def _show(picture: bytes, path: pathlib.Path, side: int) -> None:
    """Writes a JPEG that any browser can show, without rotating it; transparency becomes white."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(picture))
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would clip instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((side, side))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.save(path, "JPEG", quality=95, subsampling="4:4:4", icc_profile=profile)

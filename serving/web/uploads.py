"""Restores uploaded pictures as the client would, several at a time, with smaller copies for a page to compare."""

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

_IN_FLIGHT = 4  # as many as the client's --in_flight
_SHOWN_SIDE, _THUMBNAIL_SIDE = 2048, 256  # pixels at most


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file that somebody gave.

    Attributes:
      name: what they call it; may be anything, and the same for several.
      path: where it lies.
    """

    name: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A picture that a model has seen.

    Attributes:
      name: of the file, unlike all others of the same run.
      untouched: why the model left it as it was, see `untouched_pictures`; None for a restored picture.
      restored: the file that the client would have written.
      before, after: upright JPEGs of one size for a page, scaled down where the picture is large.
      thumbnail: `after`, small.
    """

    name: str
    untouched: str | None
    restored: pathlib.Path
    before: pathlib.Path
    after: pathlib.Path
    thumbnail: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Failure:
    """A picture that could not be restored; the reason is a line."""

    name: str
    reason: str


def restore_uploads(
    restorer: Restorer, uploads: Sequence[Upload], folder: pathlib.Path
) -> Iterator[Comparison | Failure]:
    """Restores pictures; one that fails does not stop the others.

    Args:
      restorer: the connection.
      uploads: the pictures.
      folder: an empty one, for what is made.

    Yields:
      What became of each, in the order given.

    Raises:
      UserError: no server, or not this model on it.
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
    """File names without folders, none twice: a second `a.jpg` becomes `a-2.jpg`; `A.jpg` counts as `a.jpg`."""
    taken: set[str] = set()
    unique = []
    for name in names:
        # Only what follows the last slash: the name comes from a browser, and is to stay inside a folder of ours.
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
    """Writes the restored files into a zip archive, stored as they are: pictures do not get smaller."""
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
    before = result.photo.request  # what was sent is upright, unlike the file, of which an untouched picture is a copy
    after = before if result.untouched else result.content
    _show(before, comparison.before, _SHOWN_SIDE)
    _show(after, comparison.after, _SHOWN_SIDE)
    _show(after, comparison.thumbnail, _THUMBNAIL_SIDE)
    comparison.restored.write_bytes(result.content)
    return comparison


def _show(picture: bytes, path: pathlib.Path, side: int) -> None:
    """Writes a JPEG that any browser shows, without turning it; what is transparent becomes white."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(picture))
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    if image.mode.startswith("I"):  # 16 bits, of which Pillow's conversion would clip the upper ones
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((side, side))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.save(path, "JPEG", quality=95, subsampling="4:4:4", icc_profile=profile)

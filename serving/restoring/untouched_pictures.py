"""Pictures that a model left as they were: they are copied, byte for byte, counted and listed.

    OUTPUT/
      holiday/0001.jpg      restored
      holiday/0002.jpg      a copy of the input file
      untouched.jsonl       {"filename": "holiday/0002.jpg", "reason": "mark not found"}, one per line, sorted by name

| reason | who says so |
| --- | --- |
| mark not found | an export of `serving.key`, by its output `found` |
| nothing changed | the pixels, where the model has no such output: those that came back are those that were sent |
"""

from __future__ import annotations

import dataclasses
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from common.command_line import UserError
from serving.restoring import photo
from serving.restoring.answer import Answer

MARK_NOT_FOUND = "mark not found"
NOTHING_CHANGED = "nothing changed"

LIST = "untouched.jsonl"
FAILED = "failed.jsonl"  # beside it, by `serving.batch_restore`


@dataclasses.dataclass(frozen=True)
class Result:
    """The file to write.

    Attributes:
      content: its bytes: the input file's own where the model left the picture as it was.
      untouched: why it did, `MARK_NOT_FOUND` or `NOTHING_CHANGED`; None for a restored picture.
    """

    content: bytes
    untouched: str | None


def result(picture: photo.Photo, answer: Answer) -> Result:
    """Makes the file to write of a model's answer.

    Args:
      picture: as it was read.
      answer: what the model made of `picture.request`.

    Raises:
      ValueError: the answer has another size than the picture.
    """
    if answer.found is None:
        untouched = NOTHING_CHANGED if _same_pixels(picture.request, answer.restored_bytes) else None
    else:
        untouched = None if answer.found else MARK_NOT_FOUND
    if untouched:
        return Result(picture.original, untouched)
    return Result(photo.write(picture, answer.restored_bytes), None)


def is_list(name: str) -> bool:
    """Whether a file is one of ours beside restored pictures, rather than one that somebody put there."""
    return name.rpartition("/")[2] in (LIST, FAILED)


def lines(reasons: Mapping[str, str]) -> str:
    """The list's text.

    Args:
      reasons: by name, with /.

    Returns:
      JSON in ASCII, one object per line, sorted by name.
    """
    return "".join(json.dumps({"filename": name, "reason": reasons[name]}) + "\n" for name in sorted(reasons))


def parse(content: bytes, path: str) -> dict[str, str | None]:
    """Reads a list.

    Args:
      content: the file's bytes; an unfinished last line, as of a process that was killed, counts as none.
      path: the file, for messages.

    Returns:
      The reasons by name. Of several lines for one name the last one counts.

    Raises:
      UserError: not a list of ours.
    """
    try:
        entries = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        return {entry["filename"]: entry["reason"] for entry in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a list of untouched pictures; move it elsewhere") from error


class Counts:
    """What a summary can say of untouched pictures or frames.

    Attributes:
      untouched: name or number and reason of each.
    """

    untouched: Sequence[tuple[Any, str]]

    @property
    def mark_not_found(self) -> int:
        """How many in which a keyed export did not find its mark."""
        return len(self.untouched_for(MARK_NOT_FOUND))

    @property
    def unchanged(self) -> int:
        """How many in which a model that looks for no mark in particular changed nothing."""
        return len(self.untouched_for(NOTHING_CHANGED))

    def untouched_for(self, reason: str) -> list:
        """Names or numbers of those with this reason."""
        return [which for which, why in self.untouched if why == reason]

    def untouched_text(self, list_file: str) -> str:
        """The part of a summary line about untouched pictures, after a comma; empty where there are none."""
        parts = []
        if self.mark_not_found:
            parts.append(f"mark not found in {self.mark_not_found}")
        if self.unchanged:
            parts.append(f"unchanged {self.unchanged} in which the model found nothing to restore")
        return f", {', '.join(parts)} (listed in {list_file})" if parts else ""


def is_unchanged(sent: np.ndarray, received: np.ndarray) -> bool:
    """Whether a model changed nothing: uint8 pixels of one shape `[H, W, 3]`, equal everywhere."""
    return sent.shape == received.shape and np.array_equal(sent, received)


def _same_pixels(sent: bytes, received: bytes) -> bool:
    """Whether two picture files show the same colours, 8 bits per channel, neither turned by its EXIF orientation.

    Models decode JPEGs by the accurate integer transform, as Pillow does. Should a server decode them otherwise, its
    pictures count as restored.
    """
    try:
        before = _colours(sent)
    except (OSError, SyntaxError, ValueError):  # what Pillow raises on damage that a server may overlook
        return False
    return is_unchanged(before, _colours(received))


def _colours(data: bytes) -> np.ndarray:
    """The pixels of a file as a model sees them, uint8 `[H, W, 3]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):  # 16 bits, of which models see the upper 8
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # A palette goes through RGBA: straight to RGB, Pillow would warn of its transparency.
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))

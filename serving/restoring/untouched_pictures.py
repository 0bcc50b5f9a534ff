"""Images that a model left unchanged: these are copied byte for byte, counted and listed.

    OUTPUT/
      holiday/0001.jpg      restored
      holiday/0002.jpg      a copy of the input file
      untouched.jsonl       {"filename": "holiday/0002.jpg", "reason": "mark not found"}, one per line, sorted by name

| reason | how it is determined |
| --- | --- |
| mark not found | the output `found` of an export of `serving.key` |
| nothing changed | for models without that output: the restored pixels equal the ones sent |
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
FAILED = "failed.jsonl"  # in the same folder, written by `serving.batch_restore`


@dataclasses.dataclass(frozen=True)
class Result:
    """The file to write.

    Attributes:
      content: its bytes; the input file's own if the model left the image unchanged.
      untouched: `MARK_NOT_FOUND` or `NOTHING_CHANGED` if the model left the image unchanged; None if restored.
    """

    content: bytes
    untouched: str | None


def result(picture: photo.Photo, answer: Answer) -> Result:
    """Turns a model's answer into the file to write.

    Args:
      picture: the picture as read.
      answer: the model's answer to `picture.request`.

    Raises:
      ValueError: the answer has a different size than the picture.
    """
    if answer.found is None:
        untouched = NOTHING_CHANGED if _same_pixels(picture.request, answer.restored_bytes) else None
    else:
        untouched = None if answer.found else MARK_NOT_FOUND
    if untouched:
        return Result(picture.original, untouched)
    return Result(photo.write(picture, answer.restored_bytes), None)


def is_list(name: str) -> bool:
    """Whether a file name is that of one of our lists, `LIST` or `FAILED`."""
    return name.rpartition("/")[2] in (LIST, FAILED)


def lines(reasons: Mapping[str, str]) -> str:
    """Formats the list.

    Args:
      reasons: reasons by name, with /.

    Returns:
      JSON in ASCII, one object per line, sorted by name.
    """
    return "".join(json.dumps({"filename": name, "reason": reasons[name]}) + "\n" for name in sorted(reasons))


def parse(content: bytes, path: str) -> dict[str, str | None]:
    """Parses a list.

    Args:
      content: the file's bytes; an incomplete last line, left by a killed process, is ignored.
      path: the file's path, for error messages.

    Returns:
      The reasons by name. If a name has several lines, the last one counts.

    Raises:
      UserError: the file is not such a list.
    """
    try:
        entries = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        return {entry["filename"]: entry["reason"] for entry in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a list of untouched pictures; move it elsewhere") from error


class Counts:
    """Counts of untouched images or frames, for summaries.

    Attributes:
      untouched: name or number, and reason, of each.
    """

    untouched: Sequence[tuple[Any, str]]

    @property
    def mark_not_found(self) -> int:
        """How many images or frames in which a keyed export did not find its mark."""
        return len(self.untouched_for(MARK_NOT_FOUND))

    @property
    def unchanged(self) -> int:
        """How many images or frames a model that looks for no particular mark left unchanged."""
        return len(self.untouched_for(NOTHING_CHANGED))

    def untouched_for(self, reason: str) -> list:
        """Returns the names or numbers of those with this reason."""
        return [which for which, why in self.untouched if why == reason]

    def untouched_text(self, list_file: str) -> str:
        """Formats the part of a summary line about untouched images, with a leading comma; empty if there are none."""
        parts = []
        if self.mark_not_found:
            parts.append(f"mark not found in {self.mark_not_found}")
        if self.unchanged:
            parts.append(f"unchanged {self.unchanged} in which the model found nothing to restore")
        return f", {', '.join(parts)} (listed in {list_file})" if parts else ""


def is_unchanged(sent: np.ndarray, received: np.ndarray) -> bool:
    """Whether a model changed nothing: both uint8 `[H, W, 3]`, of equal shape and pixels."""
    return sent.shape == received.shape and np.array_equal(sent, received)


def _same_pixels(sent: bytes, received: bytes) -> bool:
    """Whether two image files have the same colors at 8 bits per channel, ignoring EXIF orientation.

    Models decode JPEGs with the accurate integer transform, like Pillow. If a server decodes them differently, its
    images count as restored.
    """
    try:
        before = _colours(sent)
    except (OSError, SyntaxError, ValueError):  # raised by Pillow for damage that a server may tolerate
        return False
    return is_unchanged(before, _colours(received))


def _colours(data: bytes) -> np.ndarray:
    """Decodes a file's pixels as a model sees them, uint8 `[H, W, 3]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):  # 16 bits; models see the upper 8
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # Palettes are converted via RGBA: converting to RGB directly would make Pillow warn about their transparency.
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))

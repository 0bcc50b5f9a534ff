"""Restores a video frame by frame through a server; copies sound, subtitles and metadata.

Frames are read and written by ffmpeg, which comes with imageio-ffmpeg (extra `video`). The video stream is encoded as
H.264 without visible loss, at the original's size and frame rate; a variable frame rate becomes constant. Sound and
subtitle streams are copied unchanged.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fractions
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np
from tqdm import tqdm

from common import child_process
from common.command_line import UserError
from serving.restoring import ffmpeg, untouched_pictures
from serving.restoring.remote import Refused, Restorer

_CRF = "16"  # H.264 constant rate factor, 0 to 51; below about 18 people see no difference
_SHOWN_RANGES = 10  # maximum number of frame ranges in the summary line
_NTSC = fractions.Fraction(1000, 1001)


def _frame_rate(reported: float) -> fractions.Fraction:
    """Recovers the exact frame rate: ffmpeg reports two decimals, and 29.97 would drift from sound at 30000/1001."""
    ntsc = round(reported / _NTSC) * _NTSC
    return ntsc if abs(ntsc - reported) < 0.005 else fractions.Fraction(reported).limit_denominator(1000)


def _colors(pixel_format: str) -> list[str]:
    """Returns output options that convert RGB back to the source's color space; ffmpeg assumes BT.601 if untagged."""
    if "bt709" not in pixel_format:
        return []
    tags = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return ["-vf", "scale=out_color_matrix=bt709", *tags]


def _described(source: pathlib.Path) -> ffmpeg.Described:
    """Asks ffmpeg to describe a video.

    Raises:
      UserError: not a video, or more than 8 bits per channel.
    """
    try:
        described = ffmpeg.describe(source)
    except ValueError as error:
        raise UserError(f"{source}: not a video that ffmpeg reads, or damaged") from error
    if not described.rate:
        raise UserError(f"{source}: a picture, or a video without a frame rate; leave --video out for pictures")
    deep = ("bt2020", "10le", "12le")
    if any(sign in described.pixel_format for sign in deep):
        raise UserError(f"{source}: {described.pixel_format}, more than 8 bits a channel; convert it to 8 bits first")
    return described


def _answered(
    restorer: Restorer, frames: Iterator[np.ndarray], in_flight: int
) -> Iterator[tuple[np.ndarray, str | None]]:
    """Yields restored frames in order, each with the reason if it is untouched, while the next ones are in flight."""

    def ask(frame: np.ndarray) -> tuple[np.ndarray, str | None]:
        answer = restorer.ask_pixels(frame)
        if answer.found is None:
            unchanged = untouched_pictures.is_unchanged(frame, answer.restored)
            return answer.restored, untouched_pictures.NOTHING_CHANGED if unchanged else None
        return answer.restored, None if answer.found else untouched_pictures.MARK_NOT_FOUND

    with futures.ThreadPoolExecutor(in_flight) as executor:
        pending: collections.deque[futures.Future] = collections.deque()
        try:
            for frame in frames:
                pending.append(executor.submit(ask, frame))
                if len(pending) > in_flight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for job in pending:
                job.cancel()


def _joined(picture: pathlib.Path, source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the restored video stream together with the source's sound, subtitles and metadata."""
    command = [ffmpeg.program(), "-nostdin", "-v", "error", "-y", "-i", picture, "-i", os.path.abspath(source)]
    command += ["-map", "0:v:0", "-map", "1:a?", "-map", "1:s?", "-map_metadata", "1", "-c", "copy", target]
    result = child_process.run(command, capture_output=True)
    if result.returncode:
        reason = " ".join(result.stderr.decode("utf-8", "replace").split()) or f"exit code {result.returncode}"
        raise UserError(f"{target}: ffmpeg cannot write it: {reason}; another suffix may hold what {source} has")


@dataclasses.dataclass
class VideoSummary(untouched_pictures.Counts):
    """The result of restoring a video.

    Attributes:
      restored: number of frames that the model changed.
      untouched: number, from 1, and reason of each frame that the model left unchanged.
    """

    restored: int = 0
    untouched: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    @property
    def frames(self) -> int:
        """Number of frames written."""
        return self.restored + len(self.untouched)

    def __str__(self) -> str:
        text = f"restored {self.restored} frames"
        if self.mark_not_found:
            frames = self.untouched_for(untouched_pictures.MARK_NOT_FOUND)
            text += f", mark not found in {self.mark_not_found} ({_ranges(frames)})"
        if self.unchanged:
            frames = self.untouched_for(untouched_pictures.NOTHING_CHANGED)
            text += f", unchanged {self.unchanged} in which the model found nothing to restore ({_ranges(frames)})"
        return text


def _ranges(numbers: Sequence[int]) -> str:
    """Formats ascending frame numbers as "frames 3-14, 20"; if there are many ranges, only the first ones."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_SHOWN_RANGES]]
    more = f" and {len(ranges) - len(shown)} more ranges" if len(ranges) > len(shown) else ""
    return f"frame{'s' * (len(numbers) > 1)} {', '.join(shown)}{more}"


def restore_video(
    restorer: Restorer,
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    in_flight: int = 4,
    overwrite: bool = False,
    progress: bool = True,
) -> VideoSummary:
    """Restores a video.

    Args:
      restorer: the connection.
      source: a video that ffmpeg can read, 8 bits per channel.
      target: the file to write, atomically; its suffix selects the container format.
      in_flight: number of concurrent requests.
      overwrite: replace an existing file.
      progress: show a progress bar.

    Returns:
      The summary.

    Raises:
      UserError: the video cannot be read or written, `target` exists, the server rejects a frame, or it went away.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if target.exists() and (not overwrite or target.samefile(source)):
        raise UserError(f"{target} exists; name another file, or give --overwrite (never for the original itself)")
    described = _described(source)
    rate = _frame_rate(described.rate)
    restorer.warm_up()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}; name a file that can be written") from error
    summary, warnings = VideoSummary(), []
    expected = round(described.seconds * rate) or None
    # 4:2:0 requires even sides.
    pixel_format = "yuv444p" if any(side % 2 for side in described.size) else "yuv420p"
    parameters = ["-vcodec", "libx264", "-pix_fmt", pixel_format, "-crf", _CRF, *_colors(described.pixel_format)]
    with folder, tqdm(total=expected, unit="frame", disable=not progress or None) as bar:
        picture = pathlib.Path(folder.name, "picture.mp4")
        frames = ffmpeg.read_frames(source, described.size, rate)
        try:
            with contextlib.closing(frames), ffmpeg.Writer(picture, described.size, rate, parameters) as writer:
                for restored, untouched in _answered(restorer, _blaming(source, frames), in_flight):
                    writer.write(restored)
                    if untouched:
                        summary.untouched.append((summary.frames + 1, untouched))
                    else:
                        summary.restored += 1
                    bar.update()
                if not summary.frames:
                    raise UserError(f"{source}: not a video that ffmpeg reads, or damaged: no frames in it")
                warnings = writer.close()
        except Refused as error:
            raise UserError(f"{source}: frame {summary.frames + 1}: {error}; nothing is written") from error
        except ffmpeg.Stopped as error:
            raise UserError(f"{target}: ffmpeg stopped: {error}") from error
        whole = pathlib.Path(folder.name, target.name)
        _joined(picture, source, whole)
        os.replace(whole, target)
    for warning in warnings:
        print(f"ffmpeg: {warning}", file=sys.stderr)
    return summary


def _blaming(source: pathlib.Path, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the same frames; if reading them fails, raises a UserError that names the source."""
    try:
        yield from frames
    except ffmpeg.Stopped as error:
        raise UserError(f"{source}: ffmpeg stopped reading it: {error}; nothing is written") from error

"""Reads and writes video frames through pipes to ffmpeg.

imageio-ffmpeg is used only for the ffmpeg binary it ships: its own readers and writers start ffmpeg by `fork`, which
gRPC's threads do not survive; see `common.child_process`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fractions
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from common import child_process
from common.command_line import UserError

_KEPT_LINES = 32  # last lines kept of ffmpeg's stderr; they say why it stopped
_ASKED_TO_STOP = 255  # ffmpeg's exit code after SIGINT or SIGTERM


class Stopped(Exception):
    """ffmpeg ended before it was done; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Described:
    """ffmpeg's description of a video.

    Attributes:
      size: (width, height) in pixels of the frames as read, upright.
      rate: frames per second, to two decimals; 0 if there is none, as for a still image.
      seconds: duration; 0 if unknown.
      pixel_format: ffmpeg's name for the pixel format, with the color space in brackets: `yuv420p(tv, bt709)`.
    """

    size: tuple[int, int]
    rate: float
    seconds: float
    pixel_format: str


def program() -> str:
    """Returns the path of ffmpeg.

    Raises:
      UserError: ffmpeg is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("--video needs ffmpeg: pip install 'cleanplate[video]'") from error
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError("--video needs ffmpeg: install it, or name it in IMAGEIO_FFMPEG_EXE") from error


def describe(source: str | os.PathLike) -> Described:
    """Asks ffmpeg to describe a video.

    Args:
      source: the file.

    Raises:
      ValueError: not a video that ffmpeg can read.
      UserError: ffmpeg is not installed.
    """
    # Decodes one frame: for a rotated video, only the decoded frame has the upright size.
    command = [program(), "-nostdin", "-i", os.path.abspath(source), "-frames:v", "1", "-pix_fmt", "rgb24"]
    said = child_process.run([*command, "-f", "null", "-"], capture_output=True).stderr.decode("utf-8", "replace")
    streams = [line for line in said.splitlines() if re.match(r"\s*Stream .* Video: ", line)]
    if len(streams) < 2:  # one line for the input and one for the output
        raise ValueError("no video")
    stored = streams[0].partition(" Video: ")[2]
    size = re.search(r" (\d+)x(\d+)[, ]", streams[-1])
    fields = re.split(r",\s*(?![^()]*\))", stored)  # at commas outside brackets
    if not size or len(fields) < 2:
        raise ValueError("no size")
    rate = re.search(r" (\d+\.?\d*) fps", stored)
    duration = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d\d)", said)
    hours, minutes, seconds = map(float, duration.groups()) if duration else (0.0, 0.0, 0.0)
    return Described(
        size=(int(size[1]), int(size[2])),
        rate=float(rate[1]) if rate else 0.0,
        seconds=3600 * hours + 60 * minutes + seconds,
        pixel_format=fields[1].strip(),
    )


class _Said:
    """Reads a process's stderr, so that the pipe never fills up, and keeps the last lines."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._lines.append(line.decode("utf-8", "replace").strip())

    def lines(self) -> list[str]:
        """Waits until the process closes stderr, then returns the nonempty lines."""
        self._thread.join()
        return [line for line in self._lines if line]


def _ended(process: subprocess.Popen, said: _Said) -> str:
    """Says why a process ended, in one line."""
    return " ".join(said.lines()) or f"exit code {process.returncode}"


@contextlib.contextmanager
def _running(command: Sequence[str | os.PathLike], **pipes: int) -> Iterator[tuple[subprocess.Popen, _Said]]:
    """Runs a process that does not outlive the `with` block."""
    process = child_process.start(command, stderr=subprocess.PIPE, **pipes)
    said = _Said(process.stderr)
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # buffered data that can no longer be written
                    pipe.close()


def read_frames(source: str | os.PathLike, size: tuple[int, int], rate: fractions.Fraction) -> Iterator[np.ndarray]:
    """Reads a video's frames.

    Args:
      source: the video.
      size: (width, height), as `describe` returns it.
      rate: frames per second; a variable frame rate is converted to this one.

    Yields:
      uint8 `[height, width, 3]`, sRGB.

    Raises:
      Stopped: ffmpeg was stopped, or the last frame is cut off.
    """
    width, height = size
    command = [program(), "-nostdin", "-v", "error", "-i", os.path.abspath(source)]
    command += ["-pix_fmt", "rgb24", "-vcodec", "rawvideo", "-f", "image2pipe", "-r", str(rate), "-"]
    with _running(command, stdout=subprocess.PIPE) as (process, said):
        while len(data := process.stdout.read(width * height * 3)) == width * height * 3:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        process.wait()
        # Damage in the middle of a video is tolerated: all readable frames have been yielded.
        if data or process.returncode < 0 or process.returncode == _ASKED_TO_STOP:
            raise Stopped(_ended(process, said))


class Writer:
    """Writes frames to a video; a context manager. Call `close` inside it once all frames are written."""

    def __init__(
        self, target: str | os.PathLike, size: tuple[int, int], rate: fractions.Fraction, parameters: Sequence[str]
    ) -> None:
        """Starts ffmpeg.

        Args:
          target: the file to write; replaced if it exists.
          size: (width, height) of the frames.
          rate: frames per second.
          parameters: ffmpeg's output options: codec, quality and so on.
        """
        command = [program(), "-y", "-f", "rawvideo", "-vcodec", "rawvideo", "-s", "{}x{}".format(*size)]
        command += ["-pix_fmt", "rgb24", "-r", str(rate), "-i", "-", "-an", *parameters, "-v", "warning"]
        self._stack = contextlib.ExitStack()
        self._process, self._said = self._stack.enter_context(
            _running([*command, os.path.abspath(target)], stdin=subprocess.PIPE)
        )

    def write(self, frame: np.ndarray) -> None:
        """Writes a frame, uint8 `[height, width, 3]`.

        Raises:
          Stopped: ffmpeg has ended.
        """
        try:
            self._process.stdin.write(np.ascontiguousarray(frame))
        except OSError as error:
            self._process.wait()
            raise Stopped(_ended(self._process, self._said)) from error

    def close(self) -> list[str]:
        """Completes the file.

        Returns:
          ffmpeg's warnings, one per line.

        Raises:
          Stopped: ffmpeg failed.
        """
        with contextlib.suppress(BrokenPipeError):  # the exit code below reports the failure
            self._process.stdin.close()
        self._process.wait()
        if self._process.returncode:
            raise Stopped(_ended(self._process, self._said))
        return self._said.lines()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

"""Restores a video frame by frame through a server; sound, subtitles and metadata are the original's.

Frames are read and written by ffmpeg, which imageio-ffmpeg brings along (extra `video`). The picture becomes H.264 at
a quality that shows no loss, at the original's size and frame rate, a varying one made constant; streams beside it are
copied as they are.
"""

from __future__ import annotations

import collections
import fractions
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np
from tqdm import tqdm

from configs.command_line import UserError
from serving.restorer import Refused, Restorer

_CRF = "16"  # of H.264, 0 to 51; below about 18 people see no difference
_NTSC = fractions.Fraction(1000, 1001)


def _frame_rate(reported: float) -> fractions.Fraction:
    """Frames a second, exactly: ffmpeg reports two decimals, and 29.97 drifts away from the sound of 30000/1001."""
    ntsc = round(reported / _NTSC) * _NTSC
    return ntsc if abs(ntsc - reported) < 0.005 else fractions.Fraction(reported).limit_denominator(1000)


def _colors(pixel_format: str) -> list[str]:
    """Output parameters with which RGB becomes what it was read from: ffmpeg takes untagged video for BT.601."""
    if "bt709" not in pixel_format:
        return []
    tags = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return ["-vf", "scale=out_color_matrix=bt709", *tags]


def _opened(source: pathlib.Path) -> tuple[dict[str, Any], Iterator[bytes]]:
    """What ffmpeg says of a video, and its frames.

    Raises:
      UserError: no video, or one with more than 8 bits a channel.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("--video needs ffmpeg: pip install 'cleanplate[video]'") from error
    try:
        frames = imageio_ffmpeg.read_frames(source)
        described = next(frames)
        if not described["fps"]:
            raise UserError(f"{source}: a picture, or a video without a frame rate; leave --video out for pictures")
        if "bt2020" in described["pix_fmt"] or "10le" in described["pix_fmt"] or "12le" in described["pix_fmt"]:
            raise UserError(f"{source}: {described['pix_fmt']}, more than 8 bits a channel; convert it to 8 bits first")
        frames.close()
        described["fps"] = _frame_rate(described["fps"])
        rate = ["-r", str(described["fps"])]
        frames = imageio_ffmpeg.read_frames(source, output_params=rate)
        next(frames)
    except (OSError, IndexError, RuntimeError, StopIteration) as error:
        raise UserError(f"{source}: not a video that ffmpeg reads, or damaged") from error
    return described, frames


def _restored(restorer: Restorer, frames: Iterator[np.ndarray], in_flight: int) -> Iterator[np.ndarray]:
    """The restored frames, in order, while the next ones are under way."""
    with futures.ThreadPoolExecutor(in_flight) as executor:
        pending: collections.deque[futures.Future] = collections.deque()
        try:
            for frame in frames:
                pending.append(executor.submit(restorer.restore, frame))
                if len(pending) > in_flight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for job in pending:
                job.cancel()


def _joined(picture: pathlib.Path, source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the restored picture with everything that the source has beside its own."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", picture, "-i", source, "-map", "0:v:0"]
    command += ["-map", "1:a?", "-map", "1:s?", "-map_metadata", "1", "-c", "copy", target]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise UserError(f"{target}: ffmpeg cannot write it: {reason}; another suffix may hold what {source} has")


def restore_video(
    restorer: Restorer,
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    in_flight: int = 4,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Restores a video.

    Args:
      restorer: the connection.
      source: a video that ffmpeg reads, 8 bits a channel.
      target: what to write; its suffix says the container. It appears when it is whole.
      in_flight: requests under way at once.
      overwrite: replace what is there.
      progress: show a bar.

    Returns:
      The number of frames.

    Raises:
      UserError: it cannot be read or written, exists, a frame is refused, or the server went away.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if target.exists() and (not overwrite or target.samefile(source)):
        raise UserError(f"{target} exists; name another file, or give --overwrite (never for the original itself)")
    described, frames = _opened(source)
    import imageio_ffmpeg

    width, height = described["size"]
    restorer.warm_up()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}; name a file that can be written") from error
    done = 0
    expected = round(described["duration"] * described["fps"]) or None
    with folder, tqdm(total=expected, unit="frame", disable=not progress or None) as bar:
        picture = pathlib.Path(folder.name, "picture.mp4")
        writer = imageio_ffmpeg.write_frames(
            picture,
            (width, height),
            fps=described["fps"],
            codec="libx264",
            quality=None,
            macro_block_size=1,
            # 4:2:0 needs even sides.
            pix_fmt_out="yuv444p" if width % 2 or height % 2 else "yuv420p",
            output_params=["-crf", _CRF, *_colors(described["pix_fmt"])],
        )
        writer.send(None)
        pixels = (np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames)
        try:
            for restored in _restored(restorer, pixels, in_flight):
                writer.send(np.ascontiguousarray(restored))
                done += 1
                bar.update()
        except Refused as error:
            raise UserError(f"{source}: frame {done}: {error}; nothing is written") from error
        except OSError as error:
            raise UserError(f"{target}: ffmpeg stopped: {error}") from error
        finally:
            writer.close()
            frames.close()
        whole = pathlib.Path(folder.name, target.name)
        _joined(picture, source, whole)
        os.replace(whole, target)
    return done

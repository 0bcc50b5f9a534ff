"""A video comes back frame by frame, with its sound: made and looked at by ffmpeg itself."""

import hashlib
import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest

from common import child_process
from common.command_line import UserError
from serving.restoring.answer import PixelAnswer
from serving.restoring.remote import Refused, Restorer
from serving.restoring.video import restore_video
from tests.common.test_child_process import counted, needs_glibc

pytestmark = pytest.mark.slow

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*arguments, stdin=None):
    result = subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments)], input=stdin, capture_output=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def described(path):
    """The size, frames per second and pixel format that ffmpeg reports."""
    said = subprocess.run([FFMPEG, "-i", str(path)], capture_output=True, text=True).stderr
    [video] = [line for line in said.splitlines() if " Video: " in line]
    width, height = map(int, re.search(r" (\d+)x(\d+)[, ]", video).groups())
    return {
        "size": (width, height),
        "fps": re.search(r" ([\d.]+) fps", video)[1],
        "pix_fmt": re.search(r"(yuv4\w+(\([^)]*\))?)", video)[1],
    }


def frames_of(path):
    # Not by imageio_ffmpeg's reader, which forks: this process has a server's threads.
    width, height = described(path)["size"]
    data = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def sound_of(path):
    """A digest of the packets of all sound streams, as they are stored."""
    return hashlib.sha256(ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "data", "-")).hexdigest()


@pytest.fixture(scope="module")
def make(photo, tmp_path_factory):
    """Writes a video of a camera moving over a photograph, with a tone."""
    folder = tmp_path_factory.mktemp("video")

    def write(name, size=(160, 120), rate="30000/1001", count=12, sound=True, extra=()):
        width, height = size
        frames = b"".join(photo[i : i + height, 2 * i : 2 * i + width].tobytes() for i in range(count))
        arguments = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
        if sound:
            arguments += ["-f", "lavfi", "-t", "0.4", "-i", "sine=frequency=440", "-c:a", "aac"]
        arguments += ["-c:v", "libx264", "-crf", "8", "-metadata", "copyright=Ada Lovelace", *extra]
        ffmpeg(*arguments, folder / name, stdin=frames)
        return folder / name

    return write


@pytest.mark.parametrize(
    ("size", "rate", "extra"),
    [
        ((160, 120), "30000/1001", ("-pix_fmt", "yuv420p")),
        ((161, 121), "25", ("-pix_fmt", "yuv444p")),
        (
            (160, 120),
            "24",
            ("-pix_fmt", "yuv420p", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709",
             "-color_primaries", "bt709", "-color_trc", "bt709"),
        ),
    ],
    ids=["ntsc", "odd", "bt709"],
)  # fmt: skip
def test_frames_sound_and_metadata_are_kept(server, make, tmp_path, size, rate, extra):
    source, target = make(f"{rate.replace('/', '_')}.mp4", size, rate, extra=extra), tmp_path / "out.mp4"
    with Restorer(server, "identity") as restorer:
        assert restore_video(restorer, source, target, progress=False).frames == 12
    before, after = frames_of(source), frames_of(target)
    assert after.shape == before.shape == (12, size[1], size[0], 3)
    assert np.abs(after.astype(int) - before).mean() < 2.0
    assert sound_of(target) == sound_of(source)
    assert described(target)["fps"] == described(source)["fps"]
    assert ("bt709" in described(target)["pix_fmt"]) == ("bt709" in described(source)["pix_fmt"])
    assert b"Ada Lovelace" in ffmpeg("-i", target, "-f", "ffmetadata", "-")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_each_frame_is_what_the_server_makes_of_it(server, make, tmp_path):
    source, target = make("silent.mp4", sound=False, extra=("-pix_fmt", "yuv420p")), tmp_path / "out.mp4"
    with Restorer(server) as restorer:
        restore_video(restorer, source, target, in_flight=3, progress=False)
        expected = np.stack([restorer.restore(frame) for frame in frames_of(source)])
    after, before = frames_of(target).astype(int), frames_of(source)
    assert np.abs(after - expected).mean() < 3.0 < np.abs(after - before).mean()
    # In their order: the camera moves, so that a neighbour fits less well.
    assert np.abs(after[1:] - expected[:-1]).mean() > 1.5 * np.abs(after - expected).mean()


# What the identity makes of 12 frames.
UNCHANGED = "restored 0 frames, unchanged 12 in which the model found nothing to restore (frames 1-12)\n"


def test_the_command_restores_a_video_and_overwrites_nothing(server, make, tmp_path):
    source = make("command.mp4")
    command = [sys.executable, "-m", "serving.client", f"--server={server}", "--model_name=identity", "--video"]
    command += [str(source), str(tmp_path / "out.mp4")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, UNCHANGED), result.stderr
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 1 and "out.mp4 exists" in again.stderr


def test_what_is_no_video_is_named(server, make, photo, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    ten_bits = make("ten.mp4", extra=("-pix_fmt", "yuv420p10le"))
    with Restorer(server, "identity") as restorer:
        for source, message in (
            (tmp_path / "absent.mp4", "no such file"),
            (tmp_path / "text.mp4", "not a video that ffmpeg reads"),
            (ten_bits, "more than 8 bits"),
        ):
            with pytest.raises(UserError, match=message):
                restore_video(restorer, source, tmp_path / "out.mp4", progress=False)
        with pytest.raises(UserError, match="never for the original"):
            restore_video(restorer, ten_bits, ten_bits, overwrite=True, progress=False)
    assert not (tmp_path / "out.mp4").exists()


def test_a_frame_that_is_refused_leaves_nothing(server, make, tmp_path, monkeypatch):
    ask, asked = Restorer.ask_pixels, []

    def some(self, pixels):
        asked.append(1)
        if len(asked) == 7:  # the first one was to warm up
            raise Refused("a reason")
        return ask(self, pixels)

    monkeypatch.setattr(Restorer, "ask_pixels", some)
    with Restorer(server, "identity") as restorer, pytest.raises(UserError, match="frame 6: a reason; nothing"):
        restore_video(restorer, make("refused.mp4"), tmp_path / "out.mp4", in_flight=1, progress=False)
    assert not list(tmp_path.iterdir())


@needs_glibc
def test_ffmpeg_is_started_without_a_fork(server, make, tmp_path):
    """gRPC has threads by then, and its handlers of a fork abort the process now and then."""
    places = f"{str(make('forks.mp4'))!r}, {str(tmp_path / 'out.mp4')!r}"
    code = f"""
import imageio_ffmpeg
from serving.restoring.remote import Restorer
from serving.restoring.video import restore_video
imageio_ffmpeg.get_ffmpeg_exe()  # which it starts once, to see whether it runs
started.clear()
with Restorer({server!r}, "identity") as restorer:
    assert restore_video(restorer, {places}, progress=False).frames == 12
"""
    assert counted(code) == (0, 4, 4), "described, read, written and joined, all by posix_spawn"


@pytest.mark.parametrize("number", [0, 1], ids=["reader", "writer"])
def test_ffmpeg_that_is_killed_is_an_error(server, make, tmp_path, monkeypatch, number):
    """A reader that ends early must not pass for the end of the video, nor a writer for a whole one."""
    started, start = [], child_process.start

    def kept(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    def ask(self, pixels):
        if len(started) == 2:
            started[number].kill()
            started[number].wait()
        return PixelAnswer(pixels)

    source = make("killed.mp4", (320, 240))
    monkeypatch.setattr(child_process, "start", kept)
    monkeypatch.setattr(Restorer, "ask_pixels", ask)
    with Restorer(server, "identity") as restorer, pytest.raises(UserError, match="ffmpeg stopped"):
        restore_video(restorer, source, tmp_path / "out.mp4", progress=False)
    assert not list(tmp_path.iterdir())

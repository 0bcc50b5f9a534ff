"""Restores images through a server, either ours or TF Serving.

    python -m serving.client --server=localhost:8500 photos/ restored/

Input: an image, or a folder (searched recursively). Output: the same names under OUT_DIR, in the input's format (JPEG
at quality 95), with its size, metadata (EXIF, ICC profile, XMP, IPTC, copyright) and alpha.

    photos/                        restored/
      holiday/0001.jpg               holiday/0001.jpg
      scan.png                       scan.png
      clean.jpg                      clean.jpg             a byte-for-byte copy: there was nothing to restore
      notes.txt                                            ignored, and counted
                                     untouched.jsonl       {"filename": "clean.jpg", "reason": …}, one per line

If an export of `serving.key` does not find its mark in an image, or another model changes nothing, the image is copied
unchanged, counted separately, and listed in `untouched.jsonl` with the reason: "mark not found" or "nothing changed".
The list also includes the images of earlier runs. If no image is untouched, there is no list.

Nothing is overwritten without `--overwrite`: images that are already in OUT_DIR are skipped, so running the same
command again resumes an interrupted run. If an image cannot be restored, the command prints why, continues with the
others, and exits with 1.

    python -m serving.client --server=localhost:8500 --video in.mp4 out.mp4

restores a video frame by frame and copies its sound, subtitles and metadata. Frames in which the mark was not found
are counted and listed by number, starting at 1.

From Python: `from serving.client import Restorer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from common import command_line, entry_flags
from common.command_line import UserError
from serving.endpoint import tls
from serving.restoring.folder import restore_folder
from serving.restoring.remote import Refused, Restorer
from serving.restoring.video import restore_video

__all__ = ["Refused", "Restorer", "main", "run"]

_FLAGS = flags.FlagValues()
_SERVER = flags.DEFINE_string("server", "localhost:8500", "host:port of the server's gRPC.", flag_values=_FLAGS)
_MODEL_NAME = flags.DEFINE_string("model_name", "cleanplate", "What the server calls the model.", flag_values=_FLAGS)
_DEADLINE = flags.DEFINE_float(
    "deadline_seconds", 60.0, "How long one picture may take, retries included.", 0.001, flag_values=_FLAGS
)
_IN_FLIGHT = flags.DEFINE_integer("in_flight", 4, "Requests under way at once.", 1, flag_values=_FLAGS)
_VIDEO = flags.DEFINE_bool("video", False, "The arguments are a video and the one to write.", flag_values=_FLAGS)
_CREDENTIALS = tls.define_client_flags(_FLAGS)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Restore again what OUT_DIR has already.", flag_values=_FLAGS)


def main(argv: Sequence[str]) -> int:
    """Reads the flags, restores, and prints the summary."""
    if len(argv) != 3:
        raise UserError("two arguments are needed: python -m serving.client --server=HOST:PORT IN OUT_DIR")
    options = {"in_flight": _IN_FLIGHT.value, "overwrite": _OVERWRITE.value}
    with Restorer(_SERVER.value, _MODEL_NAME.value, _DEADLINE.value, _CREDENTIALS()) as restorer:
        if _VIDEO.value:
            print(restore_video(restorer, argv[1], argv[2], **options))
            return 0
        summary = restore_folder(restorer, argv[1], argv[2], **options)
    print(summary)
    return 1 if summary.failures else 0


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()

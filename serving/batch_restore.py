r"""Restores any number of images with Apache Beam and an exported model; needs no server.

    python -m serving.batch_restore --model=runs/demo/export --input='photos/**' --output=restored \
        --direct_running_mode=multi_processing --direct_num_workers=4

Input: a folder, a pattern or a single image. Output: the same names under OUTPUT, in the input's format (JPEG at
quality 95), with its size, metadata (EXIF, ICC profile, XMP, IPTC, copyright) and alpha. Every file is byte for byte
what `serving.client` would write.

    photos/                        restored/
      holiday/0001.jpg               holiday/0001.jpg
      scan.png                       scan.png
      clean.jpg                      clean.jpg           a byte-for-byte copy: there was nothing to restore
                                     untouched.jsonl     {"filename": "clean.jpg", "reason": …}, one per line
      broken.jpg                     failed.jsonl        {"filename": "broken.jpg", "reason": …}, one per line
      notes.txt                                          ignored, and counted

--input     a folder, which means all images below it, or a Beam pattern, quoted to protect it from the shell: `*`
            matches within a folder, `**` also in subfolders. Output names are relative to the last folder before the
            first `*`, `?` or `[`. Hidden files are skipped, and so is OUTPUT if it lies inside the input.
--model     an export of `serving.export` or `serving.key`: EXPORT_DIR, which means its newest version, or the folder of
            one version. Name a version if a later run must give the same bytes.
--overwrite restores images again that are already in OUTPUT; by default they are skipped.

If an export of `serving.key` does not find its mark in an image, or another model changes nothing, the image is copied
unchanged, counted separately, and listed in `untouched.jsonl` with the reason: "mark not found" or "nothing changed".
The list also includes the images of earlier jobs.

Flags that --help does not list are Beam's, such as --runner=DataflowRunner. All three paths may be URLs (s3://, gs://)
if Beam's extra for them is installed; every worker must be able to reach them. Each process loads the model once, and
each thread holds one image in memory. TensorFlow uses all processors for one image, so more processes help only if
reading and writing are slow, or with more machines or GPUs.

The job may be killed at any moment. Every image is written atomically; running the same command again restores the
missing ones and ends with the same files as an uninterrupted run, without duplicates. untouched.jsonl is complete at
the end, and failed.jsonl is written last; both are empty if there is nothing to list. While failed.jsonl is missing,
the job has not finished. An image that cannot be restored does not stop the others; the exit code is then 1, and the
next run tries it again.

From Python: `from serving.batch.job import restore_batch`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from common import command_line, entry_flags
from serving.batch import job

_FLAGS = flags.FlagValues()
_MODEL = flags.DEFINE_string("model", None, "Folder or URL of an export or of one version of it.", flag_values=_FLAGS)
_INPUT = flags.DEFINE_string("input", None, "Folder, pattern, picture or URL to restore.", flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "Folder or URL for the restored pictures.", flag_values=_FLAGS)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Restore again what OUTPUT has already.", flag_values=_FLAGS)

_SHOWN_FAILURES = 20


def main(argv: Sequence[str]) -> int:
    """Reads the flags, restores, and prints failures and the summary."""
    model, pattern, output = command_line.required("serving.batch_restore", _MODEL, _INPUT, _OUTPUT)
    summary = job.restore_batch(model, pattern, output, overwrite=_OVERWRITE.value, beam_options=argv[1:])
    for name, reason in summary.failures[:_SHOWN_FAILURES]:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if len(summary.failures) > _SHOWN_FAILURES:
        more = len(summary.failures) - _SHOWN_FAILURES
        print(f"failed: {more} more, listed in {summary.failed_file}", file=sys.stderr)
    print(summary)
    return 1 if summary.failures else 0


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main, pass_unknown_flags=True)


if __name__ == "__main__":
    run()

r"""Restores any number of pictures by Apache Beam, with an exported model and without a server.

    python -m serving.batch_restore --model=runs/demo/export --input='photos/**' --output=restored \
        --direct_running_mode=multi_processing --direct_num_workers=4

In: a folder, a pattern or a picture. Out: the same names under OUTPUT, in the input's format (JPEG at quality 95), with
its size and metadata (EXIF, ICC profile, XMP, IPTC, copyright) and its alpha: each the same to the byte as what
`serving.client` writes of it.

    photos/                        restored/
      holiday/0001.jpg               holiday/0001.jpg
      scan.png                       scan.png
      clean.jpg                      clean.jpg           a copy, byte for byte: there was nothing to restore
                                     untouched.jsonl     {"filename": "clean.jpg", "reason": …}, one per line
      broken.jpg                     failed.jsonl        {"filename": "broken.jpg", "reason": …}, one per line
      notes.txt                                          left alone, and counted

--input     a folder: all pictures below it. Or a pattern in Beam's sense, quoted, so that the shell leaves it alone:
            `*` stays within a folder, `**` goes through those below it too. Names are kept from the last folder before
            the first `*`, `?` or `[`. Hidden files are passed over; so is OUTPUT, if it lies in there.
--model     what `serving.export` or `serving.key` wrote: EXPORT_DIR, of which the newest version is taken, or one
            version's own folder, which is the one to name where a later run must give the same bytes.
--overwrite restores again what OUTPUT has already; otherwise that is skipped.

A picture in which an export of `serving.key` does not find its mark, or in which another model changes nothing, is
copied as it is, counted apart from the restored ones, and listed in `untouched.jsonl` with the reason: "mark not found"
or "nothing changed". The list has the pictures of earlier jobs too.

Flags that are not listed by --help are Beam's: --runner=DataflowRunner and so on. All three paths may be URLs (s3://,
gs://) where Beam's extra for them is installed; every worker must reach them. Each process loads the model once, and
each thread has one picture in memory; TensorFlow uses all processors for it, so that more processes help where
reading and writing take long, or there are more machines or GPUs.

The job may be killed at any moment. A picture is written whole; the same command goes on with those that are not there
and ends with the same files as if nothing had happened, none of them twice. untouched.jsonl is complete at the
end and failed.jsonl is written last, each empty if there is nothing to list: as long as failed.jsonl is missing, the
job has not finished. A picture that cannot be restored does not stop the others; the exit code is 1 then, and the next
run tries it again.

For code: `from serving.batch.job import restore_batch`.
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

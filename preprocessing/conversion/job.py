"""What a conversion was asked to do, and what it reads: the contract between a job and the one that resumes it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterator
from typing import Any

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion import splits
from preprocessing.conversion.checks import DECODE, HEADER

# Raise it when a job that an older version began must not be resumed: `resume.find` then asks for --overwrite.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments that decide a dataset's bytes. Runner and workers do not.

    Attributes:
      images_dir: folder or URL of the images.
      output_dir: folder or URL to write to.
      split_sizes: as in `splits.parse_splits`.
      annotations: COCO instances JSON, or None.
      captions: COCO captions JSON, or None.
      shard_mb: target size of a shard, in 10^6 bytes.
      seed: decides which image goes where.
      check: "decode" or "header", see `checks.check_picture`.
      max_rejected_fraction: 0..1; more rejected images end the job with an error.
    """

    images_dir: str
    output_dir: str
    split_sizes: str
    annotations: str | None
    captions: str | None
    shard_mb: float
    seed: int
    check: str
    max_rejected_fraction: float

    @property
    def wanted(self) -> dict[str, int | float]:
        """The splits and their sizes, see `splits.parse_splits`."""
        return splits.parse_splits(self.split_sizes)

    def validated(self) -> Arguments:
        """These with absolute paths.

        Raises:
          UserError: a value cannot be used.
        """
        splits.parse_splits(self.split_sizes)
        if self.shard_mb <= 0:
            raise UserError(f"--shard_mb={self.shard_mb}: must be more than 0")
        if self.check not in (DECODE, HEADER):
            raise UserError(f"--check={self.check}: must be {DECODE} or {HEADER}")
        if not 0 <= self.max_rejected_fraction <= 1:
            raise UserError(f"--max_rejected_fraction={self.max_rejected_fraction}: must lie between 0 and 1")
        places = {
            name: filesystem.absolute(path)
            for name in ("images_dir", "output_dir", "annotations", "captions")
            if (path := getattr(self, name))
        }
        for name, path in places.items():
            filesystem.check(path, f"--{name}")
        if filesystem.join(places["output_dir"], "").startswith(filesystem.join(places["images_dir"], "")):
            raise UserError(
                f"--output_dir={places['output_dir']}: lies within --images_dir, where shards would be read as "
                "pictures; choose a folder beside it"
            )
        return dataclasses.replace(self, **places)


@dataclasses.dataclass(frozen=True)
class Job:
    """Arguments and a digest of the input.

    Attributes:
      arguments: what was asked.
      input: per input (`images_dir`, `annotations`, `captions`), its digest and sizes; empty before it was read.
    """

    arguments: Arguments
    input: dict[str, Any] = dataclasses.field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As in dataset_info.json: `arguments` and `input`, JSON objects."""
        return {"arguments": dataclasses.asdict(self.arguments), "input": self.input}

    def to_json(self) -> dict[str, Any]:
        """As in job.json: `described()` and the version."""
        return {"version": VERSION, **self.described()}


@contextlib.contextmanager
def output_errors(output_dir: str) -> Iterator[None]:
    """Turns errors of writing, in this process or in a worker, into a `UserError` that says how to continue."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        again = "finished shards are kept: run the same command again"
        if _is_disk_full(error):
            raise UserError(f"--output_dir={output_dir}: no space left on the disk; make room, {again}") from None
        if isinstance(error, OSError):
            raise UserError(f"--output_dir={output_dir}: cannot be written: {error}; {again}") from None
        raise


def _is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says so; of a worker's error a runner keeps only the text."""
    full = (errno.ENOSPC, errno.EDQUOT)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in full:
            return True
        if any(os.strerror(number) in str(seen) for number in full):
            return True
        seen = seen.__cause__ or seen.__context__
    return False

"""Reads a dataset back and checks it: every record's checksums, features and SHA-256, every count, no shard too many.

In:

    DATASET/                             as preprocessing.coco_to_tfrecord wrote it
      dataset_info.json
      train-00000-of-00002.tfrecord …

Out: one line, and exit code 0; or the first bad record by name, what to do, and exit code 1.

Command:

    python -m preprocessing.verify tfrecords
"""

from collections.abc import Sequence
from typing import Optional

from common import command_line
from preprocessing.dataset import integrity


def main(argv: Sequence[str]) -> Optional[int]:
    """Takes the folder, verifies."""
    if len(argv) != 2:
        raise command_line.UserError("expected one folder: python -m preprocessing.verify DATASET")
    integrity.verify(argv[1])


def run() -> None:
    """The console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()

"""Reads a dataset back and checks every record's checksums, features and SHA-256, all counts, and for extra shards.

In:

    DATASET/                             written by preprocessing.coco_to_tfrecord
      dataset_info.json
      train-00000-of-00002.tfrecord …

Out: one line and exit code 0; or the name of the first bad record, a remedy, and exit code 1.

Command:

    python -m preprocessing.verify tfrecords
"""

from collections.abc import Sequence
from typing import Optional

from common import command_line
from preprocessing.dataset import integrity


def main(argv: Sequence[str]) -> Optional[int]:
    """Verifies the folder given as the only argument."""
    if len(argv) != 2:
        raise command_line.UserError("expected one folder: python -m preprocessing.verify DATASET")
    integrity.verify(argv[1])


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()

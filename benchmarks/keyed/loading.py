"""Measures the time from a keyed export's files to its first answer, against exports of version 0.1.

    python -m benchmarks.keyed.loading [--older=DIR] [--quick]

    --older=DIR     a version's folder that commit 07915c5 wrote for the same watermark; by default that commit is
                    checked out from this repository's history into a temporary folder to write it

Each time is measured in a fresh process, without TensorFlow's import: loading, and restoring one 640 x 480 image.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from benchmarks.measuring.figure import report
from common import child_process, command_line
from preprocessing.marks import draw
from serving.key import key

_OLDER = flags.DEFINE_string("older", None, "A version's folder that commit 07915c5 wrote.")
_QUICK = flags.DEFINE_bool("quick", False, "One round.")

_COMMIT = "07915c5"
_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import sys, time
import numpy as np, tensorflow as tf
image = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8))
started = time.perf_counter()
loaded = tf.saved_model.load(sys.argv[1])
loaded.signatures["restore"](images=image)
print(time.perf_counter() - started)
"""


def _seconds(version: Path) -> float:
    done = child_process.run([sys.executable, "-c", _PROGRAM, version], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _write_older(mark: Path, folder: Path) -> Path:
    source = folder / "older"
    child_process.run(["git", "-C", _ROOT, "worktree", "add", "--detach", source, _COMMIT], check=True)
    try:
        command = [sys.executable, "-m", "serving.key", f"--canvas={mark}", f"--export_dir={folder / 'older-export'}"]
        child_process.run(command, cwd=source, check=True)
    finally:
        child_process.run(["git", "-C", _ROOT, "worktree", "remove", "--force", source], check=True)
    return folder / "older-export" / "1"


def measure(folder: Path, older: Path | None, rounds: int) -> None:
    """Writes both exports and times them in turn."""
    mark = folder / "mark.png"
    draw.save_whole(draw.text_stamp("Archive 1974", size=34), str(mark))
    versions = {"older": older or _write_older(mark, folder), "newer": key(str(mark), str(folder / "newer"))}
    taken = [{name: _seconds(version) for name, version in versions.items()} for _ in range(rounds)]
    seconds = {name: statistics.median(one[name] for one in taken) for name in versions}
    print(f"from files to the first answer: {seconds['older']:.1f} s before, {seconds['newer']:.1f} s now")
    report("keyed_load_and_first_answer", seconds["newer"] / seconds["older"], "x", 0.4, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), Path(_OLDER.value) if _OLDER.value else None, 1 if _QUICK.value else 3)


if __name__ == "__main__":
    command_line.run(main)

r"""Runs the demo and holds what it reached against what was promised.

    python -m benchmarks.quality [--quick]

Out: a line for each figure.

    demo_minutes            the whole of `make demo` after installation
    demo_covered_gain       dB that covered pixels of held-out crops gain
    demo_uncovered_psnr     dB of pixels that nothing covered, against the original
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from absl import app, flags

from benchmarks.demo import run_demo
from benchmarks.figure import report
from configs import command_line, demo

_QUICK = flags.DEFINE_bool("quick", False, "A tenth of the training time: shows that it runs, and misses the targets.")


def main(argv: Sequence[str]) -> None:
    """Runs the demo in a temporary folder."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    minutes = demo.get_config().max_minutes * (0.1 if _QUICK.value else 1.0)
    with tempfile.TemporaryDirectory() as folder:
        summary = run_demo("", folder, minutes)
    report("demo_minutes", sum(summary["seconds_by_stage"].values()) / 60.0, "min", 12, at_least=False)
    report("demo_covered_gain", summary["covered_psnr_out"] - summary["covered_psnr_in"], "dB", 6)
    report("demo_uncovered_psnr", summary["uncovered_psnr_out"], "dB", 38)


if __name__ == "__main__":
    command_line.run(main)

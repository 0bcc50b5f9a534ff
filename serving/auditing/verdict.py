"""Sums up the trials of one defense: its grade, the attack that decided it, and how visible the mark is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.auditing.attacks import UNTOUCHED
from serving.auditing.defences import Defence
from serving.auditing.trials import LOSSLESS, Trial


def strongest(results: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the worst result for the mark, by grade, then by PSNR over covered pixels; None if none has a grade."""
    graded = [result for result in results if result["grade"]]
    return max(graded, key=lambda one: (one["grade"], one["figures"]["covered_psnr_out"]["mean"]), default=None)


def means(result: dict[str, Any]) -> dict[str, float | None]:
    """Returns the means of a result's figures over images."""
    return {name: figure["mean"] for name, figure in result["figures"].items()}


def _visibility(results: Sequence[dict[str, Any]], plain: dict[str, Any] | None) -> dict[str, float | None]:
    """Measures visibility: PSNR and SSIM of the lossless marked copy against the clean image, over covered pixels."""
    copy = next(one for one in results if (one["attack"], one["encoding"]) == (UNTOUCHED, LOSSLESS))
    seen: dict[str, float | None] = {}
    for measure in ("covered_psnr", "covered_ssim"):
        seen[measure] = means(copy)[f"{measure}_in"]
        known = plain is not None and None not in (seen[measure], plain[measure])
        seen[f"{measure}_change"] = round(seen[measure] - plain[measure], 5) if known else None
    return seen


def judge(defence: Defence, canvas: str, trials: Sequence[Trial], plain: dict[str, Any] | None) -> dict[str, Any]:
    """Sums up the trials of a defense.

    Args:
      defence: how the mark was applied.
      canvas: the mark's path, as given by the user.
      trials: the trials of all attacks.
      plain: this function's result for the plain mark; None if this is the plain mark.

    Returns:
      A JSON-serializable entry of `defences` in summary.json, see `serving.audit`.
    """
    results = [trial.result() for trial in trials]
    best = strongest(results)
    return {
        "defence": defence.name,
        "meaning": defence.meaning,
        "spec": defence.spec(canvas),
        "grade": best["grade"] if best else None,
        "strongest": {key: best[key] for key in ("attack", "encoding")} if best else None,
        "visibility": _visibility(results, plain["visibility"] if plain else None),
        "results": results,
    }


def line(judged: dict[str, Any]) -> str:
    """Formats a result of `judge` in one line."""
    best = strongest(judged["results"])
    if best is None:
        return f"{judged['defence']}: covers nothing"
    mean = means(best)
    return (
        f"{judged['defence']}: grade {best['grade']}, {best['attack']} ({best['encoding']}): covered pixels "
        f"{mean['covered_psnr_in']:.2f} -> {mean['covered_psnr_out']:.2f} dB, SSIM {mean['covered_ssim_out']:.3f}"
    )

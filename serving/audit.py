r"""Audits how well your own watermark resists removal: attacks it as others would, and writes a report.

    python -m serving.audit --canvas=mark.png --images=photos --out=report

Input: the mark, an RGBA image; clean images, a single file or a folder (searched recursively). Each image is cropped
around its center, marked, and attacked, both as a lossless copy and as a JPEG:

    blind           a network that has never seen the mark (--model)
    keyed           the attacker has the mark's file: locate the mark, invert the blend, repair
    estimated-N     the attacker has N marked copies, estimates the mark from them, and continues as in `keyed`

The mark is applied unmodified ("plain") and hardened in each way that --defences lists: `moved`, `warp`, `opacity`,
`colour`, `combined`, `twice`; `serving.auditing.defences` describes them. The cost of hardening is how much more the
marked copy differs from the clean image.

Output: REPORT/
    index.html      one self-contained page: grades, figures, estimates of the mark, images to compare
    summary.json    `grade` of the plain mark, `rule`, `mark`, `model`, `arguments`, `pictures` (found, read, restored,
                    failed with reasons), `left_out` (attacks that need more images), and `defences`: `grade`,
                    `strongest`, `visibility`, `results` of every attack with means and medians
    pictures.csv    one row per image, defense, encoding and attack: `located` is 1 if the attack found the mark;
                    figures as in `training.evaluate`: FIGURE_in for the marked copy, FIGURE_out after the attack

The strongest attack sets the grade: from A (the mark holds) to F (it is removed). Leaving the copy untouched counts as
an attack, so a barely visible mark does not get a good grade. `serving.auditing.grades` defines the rule. The folder
appears only once it is complete. If the mark cannot be estimated from the copies, the report says so; this is not an
error. If an image cannot be read, the command names, counts and lists it, continues with the others, and exits with 1.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from common import canvas_file, command_line, entry_flags
from common.command_line import UserError
from serving.auditing import defences as defences_lib
from serving.auditing import grades, report_page, trials, verdict
from serving.auditing.attacks import BLIND, KEYED, Attacks, copies_needed
from training.evaluation import pictures, report_folder

HARDENED = tuple(defence.name for defence in defences_lib.HARDENED)
ATTACKS = (BLIND, KEYED, "estimated-5", "estimated-20", "estimated-100")
# Pixels per side. Marks are not located reliably in smaller images.
_LEAST_SIDE = 64

_FLAGS = flags.FlagValues()
_CANVAS = flags.DEFINE_string("canvas", None, "The mark, an RGBA picture.", flag_values=_FLAGS)
_IMAGES = flags.DEFINE_string("images", None, "A folder of clean pictures, or one picture.", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", "report", "The report's folder.", flag_values=_FLAGS)
_MODEL = flags.DEFINE_string(
    "model", None, "Of the blind attack: an export or a workdir; default: what comes along.", flag_values=_FLAGS
)
_REPAIR = flags.DEFINE_string(
    "repair", None, "A repair network's workdir, empty for none; default: the one that comes along.", flag_values=_FLAGS
)
_DEFENCES = flags.DEFINE_list(
    "defences", list(HARDENED), "Ways to harden the mark; empty for the plain mark alone.", flag_values=_FLAGS
)
_ATTACKS = flags.DEFINE_list(
    "attacks", list(ATTACKS), "blind, keyed, and estimated-N for any N of 5 or more.", flag_values=_FLAGS
)
_QUALITY = flags.DEFINE_integer("quality", 90, "Of the JPEG copies, libjpeg's scale.", 1, 100, flag_values=_FLAGS)
_SIDE = flags.DEFINE_integer(
    "side", 256, "Side of the centre crop in pixels, at most.", _LEAST_SIDE, flag_values=_FLAGS
)
_LIMIT = flags.DEFINE_integer(
    "limit", 20, "Pictures restored by each attack, at most; more may be read to estimate from.", 1, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of what is random about marks.", -(2**31), 2**31 - 1, flag_values=_FLAGS)
_SHOWN = flags.DEFINE_integer(
    "shown", 2, "Worst pictures shown a defence, and as many of the best.", 0, flag_values=_FLAGS
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the report that is there.", flag_values=_FLAGS)


def _chosen(names: Sequence[str]) -> list[defences_lib.Defence]:
    """Returns the plain mark and the named defenses."""
    known = {defence.name: defence for defence in defences_lib.HARDENED}
    for name in names:
        if name not in known:
            raise UserError(f"--defences: none is called {name!r}; there are {', '.join(known)}")
        if names.count(name) > 1:
            raise UserError(f"--defences: {name} is given twice; give each once")
    return [defences_lib.PLAIN, *(known[name] for name in names)]


def _check_attacks(names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"--attacks: is empty; name some of {', '.join(ATTACKS)}")
    for name in names:
        copies_needed(name)
        if names.count(name) > 1:
            raise UserError(f"--attacks: {name} is given twice; give each once")


def _read(
    found: Sequence[tuple[str, Path]], side: int, most: int
) -> tuple[list[trials.CleanImage], list[dict[str, str]]]:
    """Reads images until `most` have succeeded; returns them and the failures met on the way, with reasons."""
    read, failed = [], []
    with tqdm(total=min(most, len(found)), desc="reading", unit="picture", disable=None) as bar:
        for number, (name, path) in enumerate(found):
            if len(read) == most:
                break
            try:
                pixels = pictures.read_crop(path, side)
                if min(pixels.shape[:2]) < _LEAST_SIDE:
                    raise pictures.UnreadablePicture(f"is smaller than {_LEAST_SIDE} x {_LEAST_SIDE} pixels")
            except pictures.UnreadablePicture as error:
                failed.append({"picture": name, "reason": str(error)})
                bar.write(f"failed: {name}: {error}", file=sys.stderr)
                continue
            read.append(trials.CleanImage(number, name, pixels))
            bar.update()
    return read, failed


def _possible(names: Sequence[str], available: int) -> tuple[list[str], list[dict[str, str]]]:
    """Splits the attacks into those with enough images, and the others with the reason."""
    possible = [name for name in names if copies_needed(name) <= available]
    left_out = [
        {"attack": name, "reason": f"needs {copies_needed(name)} pictures, and {available} can be read"}
        for name in names
        if name not in possible
    ]
    if not possible:
        raise UserError(f"--attacks: {left_out[0]['attack']} {left_out[0]['reason']}; give more by --images")
    return possible, left_out


def audit(
    canvas: str,
    images: str,
    out: str,
    *,
    model_path: str | None = None,
    repair: str | None = None,
    defences: Sequence[str] = HARDENED,
    attacks: Sequence[str] = ATTACKS,
    quality: int = 90,
    side: int = 256,
    limit: int = 20,
    seed: int = 0,
    shown: int = 2,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes an audit report for a mark.

    Args:
      canvas: path of the mark, an RGBA image.
      images: a folder of clean images, or a single image.
      out: the report's folder.
      model_path: the blind attack's model: an export, one of its versions, or a training workdir; None for the
        bundled one.
      repair: a repair network's workdir; None for the bundled one, "" for no repair.
      defences: names of the hardened variants to audit in addition to the plain mark.
      attacks: `blind`, `keyed`, `estimated-N`.
      quality: JPEG quality of the copies, 1..100.
      side: maximum side of the center crop in pixels; at least 64.
      limit: maximum number of images that each attack restores.
      seed: seed for the random placement and hardening of marks.
      shown: how many of the worst images to show per defense, and as many of the best.
      overwrite: replace an existing report.

    Returns:
      The content of summary.json, plus `lines`: one line per defense with its grade.

    Raises:
      UserError: invalid user input, or no image can be read.
    """
    arguments = {
        "canvas": str(canvas),
        "images": str(images),
        "out": str(out),
        "model": model_path,
        "repair": repair,
        "defences": list(defences),
        "attacks": list(attacks),
        "quality": quality,
        "side": side,
        "limit": limit,
        "seed": seed,
        "shown": shown,
        "overwrite": overwrite,
    }
    report_folder.check(out, overwrite)
    chosen = _chosen(list(defences))
    _check_attacks(list(attacks))
    rgba = defences_lib.trimmed(np.asarray(canvas_file.read(canvas)))
    if not defences_lib.in_the_middle(rgba, side, side)[..., 3].any():
        raise UserError(f"--canvas={canvas}: nothing is in its middle {side} x {side} pixels; give a larger --side")
    found = pictures.find(images)
    read, failed = _read(found, side, max(limit, *(copies_needed(name) for name in attacks)))
    if not read:
        raise UserError(f"--images={images}: no picture can be read; the first: {failed[0]['reason']}")
    possible, left_out = _possible(list(attacks), len(read))
    armed = Attacks(possible, model_path, repair)
    judged, done_trials, laid = [], [], []
    with (
        report_folder.new_report(out, overwrite) as report,
        tempfile.TemporaryDirectory(prefix="cleanplate-audit-") as place,
    ):
        tried = trials.Trials(armed, possible, quality, limit, seed, shown, Path(place).resolve())
        total = len(chosen) * tried.count(len(read))
        with (
            open(report / report_folder.TABLE, "w", encoding="utf-8", newline="") as file,
            tqdm(total=total, unit="picture", disable=None) as bar,
        ):
            table = csv.DictWriter(file, trials.COLUMNS, lineterminator="\n")
            table.writeheader()
            for defence in chosen:
                done = []
                for trial in tried.run(defence, rgba, read, bar):
                    table.writerows(trial.rows)
                    done.append(trial)
                judged.append(verdict.judge(defence, str(canvas), done, judged[0] if judged else None))
                done_trials.append(done)
                laid.append(defence.canvas(rgba))
        summary = {
            "grade": judged[0]["grade"],
            "rule": [step._asdict() for step in grades.STEPS],
            "mark": {"width": rgba.shape[1], "height": rgba.shape[0]},
            "model": {"path": armed.model.path, "info": armed.model.info} if armed.model else None,
            "arguments": arguments,
            "pictures": {
                "found": len(found),
                "read": len(read),
                "restored": min(limit, len(read)),
                "failed": failed,
            },
            "left_out": left_out,
            "defences": judged,
        }
        (report / report_folder.SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (report / report_folder.PAGE).write_text(report_page.render(summary, laid, done_trials), encoding="utf-8")
    return summary | {"lines": [verdict.line(defence) for defence in judged]}


def main(argv: Sequence[str]) -> int:
    """Reads the flags, runs the audit, and prints one line per defense."""
    command_line.refuse_positional(argv)
    canvas, images = command_line.required("serving.audit", _CANVAS, _IMAGES)
    summary = audit(
        canvas,
        images,
        _OUT.value,
        model_path=_MODEL.value,
        repair=_REPAIR.value,
        defences=_DEFENCES.value,
        attacks=_ATTACKS.value,
        quality=_QUALITY.value,
        side=_SIDE.value,
        limit=_LIMIT.value,
        seed=_SEED.value,
        shown=_SHOWN.value,
        overwrite=_OVERWRITE.value,
    )
    for one in summary["left_out"]:
        print(f"left out: {one['attack']}: {one['reason']}")
    print(*summary["lines"], Path(_OUT.value) / report_folder.PAGE, sep="\n")
    return 1 if summary["pictures"]["failed"] else 0


def run() -> None:
    """The console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()

"""Runs every attack on copies marked with one defense, with and without JPEG compression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from serving.auditing import grades
from serving.auditing.attacks import UNTOUCHED, Attacks, copies_needed
from serving.auditing.defences import Defence, Marker, apply
from training import corruption
from training.evaluation import figures
from training.evaluation.gallery import Gallery

LOSSLESS = "lossless"
COLUMNS = (
    *("number", "picture", "defence", "encoding", "attack", "located", "width", "height", "covered_share"),
    *figures.FIGURES,
)


class CleanImage(NamedTuple):
    """An image to mark: its number (which seeds the mark's randomness), its name, and its pixels, uint8 `[H, W, 3]`."""

    number: int
    name: str
    pixels: np.ndarray


class Trial(NamedTuple):
    """The results of one attack on the copies.

    Attributes:
      defence: the defense's name.
      encoding: `lossless`, or `jpeg-` followed by the quality.
      attack: the attack's name.
      rows: one row per image with `COLUMNS`; empty if the attack was not possible.
      gallery: the images to show.
      estimate: the estimated mark, uint8 `[h, w, 4]`; None if none was estimated.
      reason: why the attack was not possible; None if it was.
    """

    defence: str
    encoding: str
    attack: str
    rows: list[dict[str, Any]]
    gallery: Gallery
    estimate: np.ndarray | None
    reason: str | None

    def result(self) -> dict[str, Any]:
        """Returns the entry for summary.json."""
        summary = figures.summarize(self.rows)
        located = [row["located"] for row in self.rows if row["located"] is not None]
        return {
            "attack": self.attack,
            "encoding": self.encoding,
            "grade": grades.grade(summary["covered_psnr_out"]["mean"], summary["covered_ssim_out"]["mean"]),
            "pictures": len(self.rows),
            "located": sum(located) if located else None,
            "not_found": self.reason,
            "figures": summary,
        }


class Trials:
    """Tries attacks on marks."""

    def __init__(
        self, attacks: Attacks, names: Sequence[str], quality: int, limit: int, seed: int, shown: int, folder: Path
    ):
        """Prepares trials.

        Args:
          attacks: attacks loaded for these names.
          names: names of the attacks; leaving the copies untouched is always tried as well.
          quality: JPEG quality, 1..100.
          limit: maximum number of images to restore; the mark may be estimated from more.
          seed: seed for everything random about marks.
          shown: how many of the worst images to keep per trial, and as many of the best.
          folder: folder for temporary files; must exist as long as this object is used.
        """
        self._attacks, self._names = attacks, (UNTOUCHED, *names)
        self._limit, self._seed, self._shown, self._folder = limit, seed, shown, folder
        # Chroma at half resolution, the default in most programs.
        jpeg = corruption.build(f"jpeg:quality={quality},chroma=420")
        self._encodings = {LOSSLESS: None, f"jpeg-{quality}": jpeg}

    def count(self, pictures: int) -> int:
        """Returns the number of restorations for one defense and this many images: the progress bar's steps."""
        return len(self._encodings) * len(self._names) * min(self._limit, pictures)

    def run(self, defence: Defence, rgba: np.ndarray, pictures: Sequence[CleanImage], bar: tqdm) -> Iterator[Trial]:
        """Yields the trials of a defense.

        Args:
          defence: how to apply the mark.
          rgba: the mark, uint8 `[h, w, 4]`, without a transparent border.
          pictures: the clean images; enough for every attack.
          bar: progress bar, advanced by one step per restoration.
        """
        marker = Marker(defence, rgba, self._folder)
        needed = max(self._limit, *(copies_needed(name) for name in self._names[1:]))
        pictures = pictures[:needed]
        marked, covered = zip(*(marker.lay(one.pixels, (self._seed, one.number)) for one in pictures))
        for encoding, encode in self._encodings.items():
            copies = marked
            if encode:
                seeds = [(self._seed, one.number) for one in pictures]
                copies = [apply(encode, copy, seed)[0] for copy, seed in zip(marked, seeds)]
            for name in self._names:
                bar.set_description(f"{defence.name}, {encoding}, {name}")
                attack = self._attacks.prepare(name, marker.canvas, copies)
                trial = Trial(defence.name, encoding, name, [], Gallery(self._shown), attack.estimate, attack.reason)
                for clean, copy, where in zip(pictures[: self._limit], copies, covered):
                    bar.update()
                    if attack.restore is None:
                        continue
                    restored, located = attack.restore(copy)
                    row = {
                        "number": clean.number,
                        "picture": clean.name,
                        "defence": defence.name,
                        "encoding": encoding,
                        "attack": name,
                        "located": None if located is None else int(located),
                        "width": copy.shape[1],
                        "height": copy.shape[0],
                    } | figures.judge(clean.pixels, copy, restored, where)
                    trial.rows.append(row)
                    trial.gallery.offer(row, copy, restored)
                yield trial

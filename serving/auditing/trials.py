"""A mark, laid one way, under every attack: what each makes of the marked copies, with and without JPEG."""

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
    """A picture to mark: its number, which its mark's randomness follows from, its name, uint8 `[H, W, 3]`."""

    number: int
    name: str
    pixels: np.ndarray


class Trial(NamedTuple):
    """What an attack made of the copies.

    Attributes:
      defence: its name.
      encoding: `lossless`, or `jpeg-` and the quality.
      attack: its name.
      rows: one a picture, `COLUMNS`; none if the attack was not possible.
      gallery: the pictures to show.
      estimate: the mark that was estimated, uint8 `[h, w, 4]`, if one was.
      reason: why the attack was not possible.
    """

    defence: str
    encoding: str
    attack: str
    rows: list[dict[str, Any]]
    gallery: Gallery
    estimate: np.ndarray | None
    reason: str | None

    def result(self) -> dict[str, Any]:
        """As summary.json holds it."""
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
          attacks: made for these names.
          names: of the attacks; leaving the copies alone is tried besides.
          quality: of the JPEGs, 1..100.
          limit: pictures that are restored; the mark may be estimated from more.
          seed: of what is random about marks.
          shown: worst pictures kept of a trial, and as many of the best.
          folder: where files may be written, as long as the object lives.
        """
        self._attacks, self._names = attacks, (UNTOUCHED, *names)
        self._limit, self._seed, self._shown, self._folder = limit, seed, shown, folder
        # Half the resolution for colour, as programs save by default.
        jpeg = corruption.build(f"jpeg:quality={quality},chroma=420")
        self._encodings = {LOSSLESS: None, f"jpeg-{quality}": jpeg}

    def count(self, pictures: int) -> int:
        """How many restorations one defence takes, of this many pictures: the steps of the bar."""
        return len(self._encodings) * len(self._names) * min(self._limit, pictures)

    def run(self, defence: Defence, rgba: np.ndarray, pictures: Sequence[CleanImage], bar: tqdm) -> Iterator[Trial]:
        """Yields the trials of a defence.

        Args:
          defence: how the mark is laid.
          rgba: the mark, uint8 `[h, w, 4]`, without a transparent border.
          pictures: enough of them for every attack.
          bar: goes on by a step for each restoration.
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

"""A run's folder: its recipe and its checkpoints.

WORKDIR/
  config.json      the recipe; a run can only be resumed with the same recipe
  checkpoints/     the newest few states, for resuming
  best/            the weights with the best validation result, for export
  validation.npz   the validation crops, for comparing an export with the figures from training
  tensorboard/     scalars and before/after images
  metrics.csv      the same scalars, one row per report
  not_finite.json  written if a loss that was not finite ended the run
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_collections

from common import files
from common.command_line import UserError


def _flat(fields: dict[str, Any], prefix: str = "config") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        path = f"{prefix}.{name}"
        flat.update(_flat(value, path) if isinstance(value, dict) else {path: value})
    return flat


def claim(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Claims the folder for this run, or checks that it already belongs to this run.

    Raises:
      UserError: the folder belongs to a run with another recipe (the message names the differing fields), cannot be
        written, or is a URL.
    """
    if "://" in workdir:
        raise UserError(
            f"--workdir={workdir}: a run's folder is on a disk; name a folder, for several machines one that all of "
            "them mount, and copy it to the URL afterwards"
        )
    # A round trip through JSON turns tuples into lists, so that they compare equal to the stored ones.
    fields = json.loads(json.dumps(config.to_dict()))
    path = Path(workdir) / "config.json"
    if path.exists():
        here, there = _flat(fields), _flat(_read_config(path))
        differing = [
            f"{name} is {here.get(name)!r} here and {there.get(name)!r} there"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        if differing:
            raise UserError(
                f"workdir {workdir} belongs to a run of another config: {'; '.join(differing)}; choose another "
                "--workdir, or the same config to continue that run"
            )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, json.dumps(fields, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"workdir {workdir}: cannot be written ({error.strerror}); choose another --workdir") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"workdir {path.parent}: holds no run (no {path.name}); train one first") from None
    except ValueError:
        raise UserError(f"{path}: is not JSON any more; restore it, or remove the folder and train again") from None


def read_config(workdir: str) -> ml_collections.ConfigDict:
    """Reads the recipe of the run in `workdir`."""
    return ml_collections.ConfigDict(_read_config(Path(workdir) / "config.json"))

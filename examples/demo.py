r"""The whole path on real photographs, as `make demo` runs it.

    python -m examples.demo --out=runs/demo [--coco=/path/to/coco] [--minutes=5]

In: a COCO folder (train2017/ or val2017/ or images/ beside annotations/, or a bare folder of pictures); without one,
the photographs that scikit-image and scikit-learn ship.

Out: OUT/
    canvas.png           the mark: drawn here, so that nobody else's is needed
    tfrecords/           Apache Beam's output
    train/               the run: checkpoints, TensorBoard
    export/1/            the SavedModel
    overlaid/ restored/  what went to the gRPC server and what came back
    before_training.png  clean | overlaid | restored by pretrained/generic, which never saw this mark
    before_after.png     clean | overlaid | restored
    summary.json         the figures, in dB, means over held-out crops

Each stage is the command a user would type, and is printed before it runs. Every start is a fresh one.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import app, flags
from PIL import Image

import pretrained
from configs import child_process, command_line
from configs import demo as demo_config
from configs.command_line import UserError
from preprocessing import canvas as canvas_lib
from preprocessing import sample_photos
from training import metrics
from training.contact_sheet import contact_sheet
from training.validation import Validation

_COCO = flags.DEFINE_string("coco", "", "A COCO folder; empty for the photographs that installed packages ship.")
_OUT = flags.DEFINE_string("out", "runs/demo", "Where everything goes.")
_MINUTES = flags.DEFINE_float("minutes", demo_config.get_config().max_minutes, "Training time.")

# Pictures of a large COCO folder that the demo uses: more would only make the conversion longer.
_MOST_TRAIN, _MOST_VAL = 2000, 100
_ROWS = 4  # of before_after.png
_SEED = 152  # of the split: of the packaged photographs, it holds out a cup, a rocket and a cat
_TEXT = "CLEANPLATE  sample"


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def run_module(title: str, module: str, *arguments: str) -> None:
    """Runs a module of ours as a user would, and shows its command.

    Raises:
      UserError: it failed; its own message was printed before.
    """
    print(f"\n== {title}\n$ python {shlex.join(_command(module, *arguments)[1:])}", flush=True)
    code = child_process.run(_command(module, *arguments)).returncode
    if code:
        raise UserError(f"{title}: {module} ended with exit code {code}; its message is above")


@contextlib.contextmanager
def _server(model_base_path: Path) -> Iterator[str]:
    """Runs the embedded server on a free port and yields its address."""
    command = _command("serving.server", f"--model_base_path={model_base_path}", "--port=0")
    print(f"\n== Serving\n$ python {shlex.join(command[1:])}", flush=True)
    with child_process.start(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = server.stdout.readline().strip()
            if " at " not in ready:
                raise UserError(f"the server did not start: {ready or 'its message is above'}")
            print(ready, flush=True)
            yield ready.split(" at ")[1].split()[0]
        finally:
            server.terminate()
            server.communicate()  # reads its farewell, and waits for it


def _find_coco(folder: str) -> tuple[Path, Path | None]:
    """The pictures and, where there is one, the annotation file of a COCO folder."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"COCO={folder}: no such folder; give one that holds train2017/, val2017/ or pictures")
    for name in ("train2017", "val2017", "images"):
        if (root / name).is_dir():
            candidates = (f"instances_{name}.json", "instances.json")
            found = [root / "annotations" / file for file in candidates if (root / "annotations" / file).exists()]
            return root / name, (found or [None])[0]
    return root, None


def _splits(images_dir: Path) -> str:
    count = sum(1 for _ in images_dir.iterdir())
    val = min(_MOST_VAL, max(1, round(0.2 * count)))
    return f"train={max(1, min(_MOST_TRAIN, count - val))},val={val}"


def _claim(out: Path) -> None:
    """Makes an empty folder, clearing what an earlier demo left but nothing else."""
    marker = out / ".cleanplate-demo"
    if marker.exists():
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"--out={out}: holds files that no demo wrote; name an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _draw_canvas(path: Path) -> None:
    canvas_lib.save_whole(canvas_lib.tile(canvas_lib.text_stamp(_TEXT), rotate=25.0), str(path))


def _write_overlaid(validation: Validation, folder: Path) -> list[str]:
    folder.mkdir()
    names = [f"{k:03d}.png" for k in range(len(validation.corrupted))]
    for name, picture in zip(names, validation.corrupted):
        Image.fromarray(picture).save(folder / name)
    return names


def _read_restored(folder: Path, names: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in names])


def _save_sheet(rows: Sequence[tuple[np.ndarray, ...]], path: Path) -> None:
    captions = [("clean", "overlaid", "restored")] + [("", "", "")] * (len(rows) - 1)
    canvas_lib.save_whole(contact_sheet(rows, captions), str(path))


def _before_training(validation: Validation, names: Sequence[str], out: Path) -> dict[str, float]:
    """Restores the first picture with the generic model; returns its PSNR in dB over covered pixels."""
    first, restored_dir = out / "overlaid" / names[0], out / "before_training"
    with _server(pretrained.GENERIC) as address:
        run_module("One picture, no training", "serving.client", f"--server={address}", str(first), str(restored_dir))
    (restored,) = _read_restored(restored_dir, names[:1])
    rows = [(validation.clean[0], validation.corrupted[0], restored)]
    _save_sheet(rows, out / "before_training.png")
    covered = {
        f"generic_covered_psnr_{when}": metrics.psnr(picture, validation.clean[0], validation.covered[0])
        for when, picture in (("in", validation.corrupted[0]), ("out", restored))
    }
    print("covered pixels {:.2f} -> {:.2f} dB: {}".format(*covered.values(), out / "before_training.png"))
    return covered


def run_demo(coco: str, out_dir: str, minutes: float) -> dict[str, object]:
    """Runs every stage.

    Args:
      coco: a COCO folder, or empty for the packaged photographs.
      out_dir: where everything goes; an earlier demo's folder is cleared.
      minutes: training time.

    Returns:
      What `summary.json` holds.

    Raises:
      UserError: a stage failed; its own message was printed before.
    """
    out = Path(out_dir)
    if coco:
        images_dir, annotations = _find_coco(coco)
    _claim(out)
    seconds: dict[str, float] = {}
    started = time.monotonic()

    def lap(stage: str) -> None:
        nonlocal started
        now = time.monotonic()
        seconds[stage] = round(now - started, 1)
        started = now

    if not coco:
        count = sample_photos.write_coco_folder(str(out / "coco"))
        print(f"No COCO=… given: {count} photographs that scikit-image and scikit-learn ship stand in for it.")
        images_dir, annotations = _find_coco(str(out / "coco"))
    _draw_canvas(out / "canvas.png")
    tfrecords, train, export = out / "tfrecords", out / "train", out / "export"
    run_module(
        "Photographs to TFRecords",
        "preprocessing.coco_to_tfrecord",
        f"--images_dir={images_dir}",
        *([f"--annotations={annotations}"] if annotations else []),
        f"--output_dir={tfrecords}",
        f"--splits={_splits(images_dir)}",
        f"--seed={_SEED}",
    )
    lap("conversion")

    config = demo_config.get_config()
    overrides = {
        "data.dir": str(tfrecords),
        "source": f"watermark:canvas={out / 'canvas.png'},opacity=0.8..1",
    }
    config.update_from_flattened_dict({**overrides, "max_minutes": minutes})
    validation = Validation(config)
    names = _write_overlaid(validation, out / "overlaid")
    generic = _before_training(validation, names, out)
    lap("before_training")

    run_module(
        f"Training, {minutes:g} minutes",
        "training.train",
        "--config=demo",
        f"--workdir={train}",
        *(f"--config.{field}={value}" for field, value in overrides.items()),
        f"--config.max_minutes={minutes}",
    )
    lap("training")

    run_module("SavedModel", "serving.export", f"--workdir={train}", f"--export_dir={export}")
    lap("export")

    with _server(export) as address:
        run_module("Restoring", "serving.client", f"--server={address}", str(out / "overlaid"), str(out / "restored"))
    restored = _read_restored(out / "restored", names)
    lap("restoration")

    after = validation.judge(restored)
    rows = list(zip(validation.clean, validation.corrupted, restored))
    shown = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
    _save_sheet(shown, out / "before_after.png")
    summary = {
        "covered_psnr_in": validation.before["covered_psnr"],
        "covered_psnr_out": after["covered_psnr"],
        "psnr_in": validation.before["psnr"],
        "psnr_out": after["psnr"],
        "uncovered_psnr_out": after["uncovered_psnr"],
        **generic,
        "targets": _targets(config),
        "canvas": str(out / "canvas.png"),
        "export_dir": str(export),
        "images": len(names),
        "seconds_by_stage": seconds,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _targets(config: ml_collections.ConfigDict) -> str:
    return "clean" if config.target == "clean" else "overlaid (Noise2Noise)"


def main(argv: Sequence[str]) -> None:
    """Runs the demo and prints where its pictures are, and the figures in one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    summary = run_demo(_COCO.value, _OUT.value, _MINUTES.value)
    print(f"\nPictures: {_OUT.value}/before_after.png   figures: {_OUT.value}/summary.json")
    print(
        "{images} held-out crops: covered pixels {covered_psnr_in:.2f} -> {covered_psnr_out:.2f} dB, all pixels "
        "{psnr_in:.2f} -> {psnr_out:.2f} dB, uncovered pixels {uncovered_psnr_out:.2f} dB; targets in training were "
        "{targets}".format(**summary)
    )


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()

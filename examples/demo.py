r"""The whole pipeline on real photographs, as run by `make demo`.

    python -m examples.demo --out=runs/demo [--coco=/path/to/coco] [--minutes=5]

In: a COCO folder (train2017/, val2017/ or images/ beside annotations/, or just a folder of images). Without one, the
demo uses the photographs that come with scikit-image and scikit-learn.

Out: OUT/
    canvas.png           the watermark, drawn by the demo so that no one else's is needed
    tfrecords/           Apache Beam's output
    train/               the run: checkpoints, TensorBoard
    export/1/            the trained network as a SavedModel
    keyed/1/             the SavedModel for the known watermark, which needs no training
    marked/              watermarked held-out crops, as sent to the gRPC servers
    pretrained/ restored/ known/    the results: from pretrained/generic, which never saw this watermark; from the
                         network trained here; and with the watermark known
    before_after.png     one row per photograph: marked | mark unknown | learned | mark known | clean
    summary.json         the figures in dB, means over held-out crops

The exit code is 1 if training failed to restore the crops: covered pixels gained less than 6 dB, or uncovered pixels
are below 38 dB.

Each stage is the command that a user would type, and is printed before it runs. Every run starts from scratch.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags
from PIL import Image

import pretrained
from common import child_process, command_line, entry_flags
from common.command_line import UserError
from configs import demo as demo_config
from preprocessing import sample_photos
from preprocessing.marks import draw as canvas_lib
from training.evaluation import psnr
from training.evaluation.contact_sheet import contact_sheet
from training.validation import Validation

_FLAGS = flags.FlagValues()
_COCO = flags.DEFINE_string(
    "coco", "", "A COCO folder; empty for the photographs that installed packages ship.", flag_values=_FLAGS
)
_OUT = flags.DEFINE_string("out", "runs/demo", "Where everything goes.", flag_values=_FLAGS)
_MINUTES = flags.DEFINE_float("minutes", demo_config.get_config().max_minutes, "Training time.", flag_values=_FLAGS)

# Maximum number of images taken from a large COCO folder: more would only make the conversion slower.
_MOST_TRAIN, _MOST_VAL = 2000, 100
_ROWS = 4  # rows of before_after.png
_SEED = 152  # seed of the split: with it, the held-out packaged photographs are a cup, a rocket and a cat
_TEXT = "CLEANPLATE  sample"
# Minimum results of the demo, in dB. A watermark that remains gains nothing; a network that guesses harms clean pixels.
LEAST_GAIN, LEAST_UNCOVERED = 6.0, 38.0


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def run_module(title: str, module: str, *arguments: str) -> None:
    """Prints a module's command and runs it as a user would.

    Raises:
      UserError: it failed; its own message has been printed already.
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
            server.communicate()  # drains its last output and waits for it to exit


def _find_coco(folder: str) -> tuple[Path, Path | None]:
    """Returns the image folder of a COCO folder and its annotation file, if there is one."""
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
    """Makes an empty folder; clears the output of an earlier demo, but nothing else."""
    marker = out / ".cleanplate-demo"
    if marker.exists():
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"--out={out}: holds files that no demo wrote; name an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _draw_canvas(path: Path) -> None:
    canvas_lib.save_whole(canvas_lib.tile(canvas_lib.text_stamp(_TEXT), rotate=25.0), str(path))


def _write_marked(validation: Validation, folder: Path) -> list[str]:
    folder.mkdir()
    names = [f"{k:03d}.png" for k in range(len(validation.corrupted))]
    for name, picture in zip(names, validation.corrupted):
        Image.fromarray(picture).save(folder / name)
    return names


def _restored_by(model_base_path: Path, title: str, marked: Path, folder: Path, names: Sequence[str]) -> np.ndarray:
    """Serves an export, sends it the watermarked crops and returns the results: uint8 `[N, H, W, 3]`."""
    with _server(model_base_path) as address:
        run_module(title, "serving.client", f"--server={address}", str(marked), str(folder))
    return np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in names])


def _save_sheet(validation: Validation, results: Mapping[str, np.ndarray], path: Path) -> None:
    """Saves one row per photograph; each column has a title, each image its PSNR over covered pixels."""
    columns = {"marked": validation.corrupted, **results, "clean": validation.clean}
    shown = range(0, len(validation.clean), max(1, len(validation.clean) // _ROWS))[:_ROWS]
    rows, captions = [], []
    for k in shown:
        rows.append([pictures[k] for pictures in columns.values()])
        figures = [
            f"{psnr.psnr(pictures[k], validation.clean[k], validation.covered[k]):.1f} dB"
            for pictures in list(columns.values())[:-1]
        ]
        captions.append([*figures, ""])
    lines = max(title.count("\n") for title in columns)
    for column, title in enumerate(columns):
        captions[0][column] = title + "\n" * (lines - title.count("\n") + 1) + captions[0][column]
    canvas_lib.save_whole(contact_sheet(rows, captions), str(path))


def require(summary: Mapping[str, float]) -> None:
    """Checks that the watermarks are gone and the other pixels unharmed.

    Raises:
      UserError: they are not; the message has the figures and a remedy.
    """
    gain = summary["covered_psnr_out"] - summary["covered_psnr_in"]
    if gain < LEAST_GAIN or summary["uncovered_psnr_out"] < LEAST_UNCOVERED:
        raise UserError(
            f"the demo did not restore its crops: covered pixels gained {gain:.2f} dB ({LEAST_GAIN:g} wanted), "
            f"uncovered pixels are at {summary['uncovered_psnr_out']:.2f} dB ({LEAST_UNCOVERED:g} wanted); train "
            "longer (--minutes=10), with nothing else running, and look at before_after.png"
        )


def run_demo(coco: str, out_dir: str, minutes: float) -> dict[str, object]:
    """Runs every stage.

    Args:
      coco: a COCO folder, or empty for the packaged photographs.
      out_dir: the output folder; an earlier demo's folder is cleared.
      minutes: training time.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: a stage failed; its own message has been printed already.
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
    validation, marked = Validation(config), out / "marked"
    names = _write_marked(validation, marked)
    unknown = _restored_by(pretrained.GENERIC, "Mark unknown: pretrained", marked, out / "pretrained", names)
    lap("mark_unknown")

    keyed = out / "keyed"
    run_module("Mark known", "serving.key", f"--canvas={out / 'canvas.png'}", f"--export_dir={keyed}")
    known = _restored_by(keyed, "Mark known: no training", marked, out / "known", names)
    lap("mark_known")

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

    restored = _restored_by(export, "Restoring", marked, out / "restored", names)
    lap("restoration")

    results = {
        "mark unknown\n(pretrained)": unknown,
        f"learned in {minutes:g} minutes from\nmarked pictures alone": restored,
        "mark known,\nno training": known,
    }
    _save_sheet(validation, results, out / "before_after.png")
    after = validation.judge(restored)
    summary = {
        "covered_psnr_in": validation.before["covered_psnr"],
        "covered_psnr_out": after["covered_psnr"],
        "psnr_in": validation.before["psnr"],
        "psnr_out": after["psnr"],
        "uncovered_psnr_out": after["uncovered_psnr"],
        "pretrained_covered_psnr_out": validation.judge(unknown)["covered_psnr"],
        "known_covered_psnr_out": validation.judge(known)["covered_psnr"],
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
    """Runs the demo, prints its output paths and its figures on one line each, and fails if the figures are too low."""
    command_line.refuse_positional(argv)
    summary = run_demo(_COCO.value, _OUT.value, _MINUTES.value)
    print(f"\nPictures: {_OUT.value}/before_after.png   figures: {_OUT.value}/summary.json")
    print(
        "{images} held-out crops: covered pixels {covered_psnr_in:.2f} -> {covered_psnr_out:.2f} dB, all pixels "
        "{psnr_in:.2f} -> {psnr_out:.2f} dB, uncovered pixels {uncovered_psnr_out:.2f} dB; mark unknown "
        "{pretrained_covered_psnr_out:.2f} dB, mark known {known_covered_psnr_out:.2f} dB; targets in training were "
        "{targets}".format(**summary)
    )
    require(summary)


def run() -> None:
    """Entry point of the console script."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()

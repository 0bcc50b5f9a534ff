r"""Measures keyed restoration: `serving.key`'s SavedModel against inversion with the true placement and opacity.

    --photos=DIR      COCO val2017: python -m preprocessing.download --dataset=coco-val2017 --dest=coco
    --canvases=DIR    RGBA PNGs; by default the watermarks that `benchmarks.data.marks` draws, which have targets
    --limit=30        number of crops
    --pictures=188    number of clean images, in which no watermark should be found

Out: one line per figure. Crops are the center 256 x 256, with the watermark at a random whole-pixel offset and an
opacity of 0.88 to 0.97. PSNR is over covered pixels, a mean over crops. "jpeg" is quality 90, 4:4:4.

    keyed_psnr_CANVAS, keyed_psnr_jpeg_CANVAS            dB after restoration; a line above gives input and oracle
    keyed_located                                        share of these crops located within a pixel, up to a period of
                                                         the pattern
    keyed_located_scaled                                 the same at a scale of 0.5 to 2 and an angle of -3 to 3 degrees
    keyed_false_finds                                    false positives: clean images in which a watermark was found
    keyed_changed_uncovered                              uncovered pixels that differ from the input
    keyed_time_CANVAS, keyed_time_scaled_CANVAS          ms for 640 x 480; also printed relative to the time TensorFlow
                                                         takes to decode the image and encode the result as PNG
    keyed_megapixels_24                                  GB that a 24-megapixel image adds to the process's peak memory,
                                                         not counting TensorFlow and the loaded model

Command:

    python -m benchmarks.keyed [--quick]
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from benchmarks.data import marked, marks
from benchmarks.data.photographs import coco_photographs, define_photos_flag
from benchmarks.measuring.figure import report
from common import command_line
from serving.key import key

_QUICK = flags.DEFINE_bool("quick", False, "Four crops, and few pictures.")
_PHOTOS = define_photos_flag()
_CANVASES = marks.define_flag()
_PICTURES = flags.DEFINE_integer("pictures", 188, "Clean pictures.", lower_bound=1)
_LIMIT = flags.DEFINE_integer("limit", 30, "Crops.", lower_bound=1)

# Target PSNR in dB without and with JPEG, for the drawn watermarks; others have no target.
_TARGETS = {
    "dense": (48.0, 30.0),
    "light": (52.0, 34.5),
    "red": (51.0, 32.0),
    "datestamp": (41.5, 24.0),
    "stamp": (48.5, 32.0),
}
_SIDE = 256


def _is_located(transform: np.ndarray, canvas: Image.Image, laid: marked.Laid, tolerance: float) -> bool:
    """Returns whether the canvas was located where it was laid, or a period away, as far as the crop shows."""
    dy, dx, scale, angle = transform
    sine, cosine = np.sin(angle), np.cos(angle)
    back = np.array([[cosine, sine], [-sine, cosine]]) / scale
    origin = -back @ np.array([dy, dx])
    size = laid.clean.shape[1::-1]
    alpha = canvas.getchannel("A")
    true = laid.layer[..., 3] / laid.layer[..., 3].max()

    def off(shift_y: float, shift_x: float) -> float:
        at = origin - back @ np.array([shift_y, shift_x])
        matrix = (back[1, 1], back[1, 0], at[1], back[0, 1], back[0, 0], at[0])
        placed = np.asarray(alpha.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)) / 255
        return float(np.abs(placed / max(placed.max(), 1e-6) - true).mean())

    # It is located correctly if no shift by more than the tolerance explains the crop better.
    here = off(0, 0)
    away = min(off(y * 2 * tolerance, x * 2 * tolerance) for y, x in [(1, 0), (-1, 0), (0, 1), (0, -1)])
    return here < away and here < 0.5 * true.mean()


def _restored(model: Any, picture: np.ndarray) -> dict[str, np.ndarray]:
    found = model.signatures["restore"](images=tf.constant(picture[None]))
    return {name: value.numpy()[0] for name, value in found.items()}


def _targets(name: str) -> tuple[float | None, float | None]:
    return _TARGETS.get(name, (None, None))


def _quality(name: str, canvas: Image.Image, model: Any, crops: Sequence[np.ndarray]) -> tuple[int, int]:
    """Prints one canvas's figures; returns the number of located crops and of uncovered pixels that changed."""
    located = changed = 0
    for suffix, target in zip(("", "_jpeg"), _targets(name)):
        rng, rows = np.random.default_rng(7), []
        for clean in crops:
            laid, corner = marked.lay(clean, canvas, rng)
            laid = marked.as_jpeg(laid) if suffix else laid
            found = _restored(model, laid.picture)
            rows.append(
                [marked.psnr(picture, laid) for picture in (laid.picture, marked.oracle(laid), found["restored"])]
            )
            altered = int((found["restored"] != laid.picture).any(-1)[laid.layer[..., 3] == 0].sum())
            changed += altered
            if altered:
                print(f"{name}{suffix}: crop {len(rows)}: {altered} uncovered pixels changed, {found['transform']}")
            if not suffix:
                exact = np.array([*corner, 1.0, 0.0])
                is_there = np.abs(found["transform"] - exact).max() <= 1.0
                located += is_there or _is_located(found["transform"], canvas, laid, 1.0)
        given, oracle, keyed = np.mean(rows, axis=0)
        print(f"{name}{suffix}: input {given:.1f} dB, oracle {oracle:.1f} dB")
        report(f"keyed_psnr{suffix}_{name}", keyed, "dB", target)
    return located, changed


def _peak() -> float:
    """Returns this process's peak resident memory in GB; getrusage would also count its parent's."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e9


def _memory(model_path: str, canvas_path: str) -> tuple[float, float]:
    """Returns peak resident GB after loading the model, then after restoring 24 megapixels, watermarked and clean."""
    model = tf.saved_model.load(model_path)
    loaded = _peak()
    rng = np.random.default_rng(0)
    picture = np.repeat(np.repeat(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), 100, 0), 100, 1)
    mark = np.asarray(Image.open(canvas_path).convert("RGBA")).astype(np.float32)
    alpha = mark[..., 3:] / 255 * 0.9
    marked_picture = picture.copy()
    part = marked_picture[1000 : 1000 + mark.shape[0], 2000 : 2000 + mark.shape[1]]
    part[:] = np.round(part * (1 - alpha) + mark[..., :3] * alpha)
    if not _restored(model, marked_picture)["opacity"]:
        raise RuntimeError("the mark was not found in the large picture")
    _restored(model, picture)
    return loaded, _peak()


def _milliseconds(model: Any, picture: np.ndarray, rounds: int) -> float:
    images, seconds = tf.constant(picture[None]), []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        model.signatures["restore"](images=images)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:])


def measure(pictures: Sequence[Path], canvases: dict[str, Path], folder: Path, limit: int, clean_pictures: int) -> None:
    """Prints the figures.

    Args:
      pictures: photographs, at least one of 640 x 480.
      canvases: RGBA images by name.
      folder: an empty folder.
      limit: maximum number of crops.
      clean_pictures: number of clean images searched for false positives.
    """
    crops = marked.centre_crops(pictures, _SIDE, limit)
    large = next(np.asarray(image) for image in map(Image.open, pictures) if image.size == (640, 480))
    located = scaled = changed = false_finds = 0
    for name, path in canvases.items():
        canvas = Image.open(path).convert("RGBA")
        model_path = key(str(path), str(folder / name))
        model = tf.saved_model.load(str(model_path))
        found, altered = _quality(name, canvas, model, crops)
        located, changed = located + found, changed + altered
        rng = np.random.default_rng(11)
        for clean in crops:
            laid, _ = marked.lay_scaled(clean, canvas, rng)
            scaled += _is_located(_restored(model, laid.picture)["transform"], canvas, laid, 1.0)
        for picture in pictures[:clean_pictures]:
            restored = _restored(model, np.asarray(Image.open(picture).convert("RGB")))
            if restored["opacity"]:
                false_finds += 1
                print(f"{name}: found in {picture.name}, score {restored['score']:.1f}")

        laid, _ = marked.lay(large, canvas, np.random.default_rng(1))
        turned, _ = marked.lay_scaled(large, canvas, np.random.default_rng(1))
        coded = tf.io.encode_jpeg(large)
        codec = []
        for _ in range(6):
            started = time.perf_counter()
            tf.io.encode_png(tf.io.decode_jpeg(coded)).numpy()
            codec.append(1000 * (time.perf_counter() - started))
        for suffix, picture, target in (("", laid, 150), ("_scaled", turned, 500)):
            taken = _milliseconds(model, marked.as_jpeg(picture).picture, 5)
            print(f"{name}{suffix}: {taken / statistics.median(codec):.1f} times the codec's")
            report(f"keyed_time{suffix}_{name}", taken, "ms", target, at_least=False)
    report("keyed_located", located / len(crops) / len(canvases), "of 1", 0.99)
    report("keyed_located_scaled", scaled / len(crops) / len(canvases), "of 1", 0.95)
    report("keyed_false_finds", false_finds, "pictures", 0, at_least=False)
    report("keyed_changed_uncovered", changed, "pixels", 0, at_least=False)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        name, path = min(canvases.items(), key=lambda item: np.prod(Image.open(item[1]).size))
        loaded, most = pool.apply(_memory, (str(folder / name / "1"), str(path)))
        print(f"24 megapixels: {most:.2f} GB resident at most, {loaded:.2f} with the model loaded")
        report("keyed_megapixels_24", most - loaded, "GB", 1.5, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures."""
    command_line.refuse_positional(argv)
    pictures = coco_photographs(_PHOTOS.value)
    with tempfile.TemporaryDirectory() as folder:
        canvases = marks.paths(_CANVASES.value, Path(folder, "marks"))
        limit, clean_pictures = (4, 8) if _QUICK.value else (_LIMIT.value, _PICTURES.value)
        measure(pictures, canvases, Path(folder), limit, clean_pictures)


if __name__ == "__main__":
    command_line.run(main)

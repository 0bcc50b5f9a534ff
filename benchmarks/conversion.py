"""Measures the conversion of images to TFRecords: memory, and speed against Beam's own writer and a bare decoder.

In: photographs, repeated under other names until there are enough. A comment segment in each copy makes its bytes,
and so its SHA-256, unique.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's

Out: one line per figure.

    conversion_header             images/s with --check=header, one process
    conversion_header_ratio       speed against the same checks and records through beam.io.WriteToTFRecord
    conversion_decode_1, _2       images/s with --check=decode, one process and two
    conversion_decode_ratio_1, _2 speed against a plain loop that reads and decodes the same files in as many processes
    conversion_memory_*           peak of the total resident memory of the command and all its processes

Both sides of a ratio run alternately, and medians are reported. Times cover the whole job, from the arguments to
dataset_info.json, including the start of worker processes but not the import of Beam in the main process. The plain
loop's time includes the start of its processes. WriteToTFRecord does not have to search for duplicates.

Command:

    python -m benchmarks.conversion [--quick]
"""

import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import apache_beam as beam
import psutil
import tensorflow as tf
from absl import flags
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.data.photographs import decode_plainly, lay_out_copies
from benchmarks.measuring.figure import median_of_alternating, report
from common import child_process, command_line
from common.beam import runner
from preprocessing.conversion import shards
from preprocessing.conversion.checks import HEADER, check_picture
from preprocessing.conversion.convert import convert
from preprocessing.dataset import schema

_QUICK = flags.DEFINE_bool("quick", False, "Fewer pictures and rounds; the ratios then include more of the start.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs to repeat.")

# Small enough that ten thousand images spread evenly over two processes.
_SHARD_MB = 32


def main(argv: Sequence[str]) -> Optional[int]:
    """Prepares the images, measures, and prints the figures."""
    few, some, many, rounds = (500, 1_000, 2_000, 1) if _QUICK.value else (1_000, 5_000, 10_000, 3)
    with tempfile.TemporaryDirectory(prefix="cleanplate-conversion-") as folder:
        work = Path(folder)
        for count in (few, some, many):
            lay_out_copies(_IMAGES.value, count, work / str(count))
        _measure_header(work, some, rounds)
        _measure_decode(work, some, 1, rounds)
        _measure_decode(work, many, 2, rounds)
        for processes, count in itertools.product((1, 2), (few, many)):
            _measure_memory(work, count, processes)


def _measure_header(work: Path, count: int, rounds: int) -> None:
    images = work / str(count)

    def ours() -> None:
        _convert(images, work / "out", HEADER, 1)

    def theirs() -> None:
        shutil.rmtree(work / "out", ignore_errors=True)
        _write_to_tfrecord(images, work / "out")

    ours()  # warm-up: the first Beam pipeline in a process is slower
    own, other = median_of_alternating([ours, theirs], rounds)
    print(f"{count} pictures, --check=header: {count / own:.0f} images/s; WriteToTFRecord {count / other:.0f} images/s")
    report("conversion_header", count / own, "images/s")
    report("conversion_header_ratio", other / own, "x", target=5)


def _measure_decode(work: Path, count: int, processes: int, rounds: int) -> None:
    images = work / str(count)
    own, other = median_of_alternating(
        [
            lambda: _convert(images, work / "out", "decode", processes),
            lambda: decode_plainly(images, work, processes),
        ],
        rounds,
    )
    print(
        f"{count} pictures, --check=decode, {processes} processes: {count / own:.0f} images/s; "
        f"plain loop {count / other:.0f} images/s"
    )
    report(f"conversion_decode_{processes}", count / own, "images/s")
    report(f"conversion_decode_ratio_{processes}", other / own, "x", target=0.8)


def _measure_memory(work: Path, count: int, processes: int) -> None:
    command = [sys.executable, "-m", "preprocessing.coco_to_tfrecord", f"--images_dir={work / str(count)}"]
    command += [f"--output_dir={work / 'out'}", f"--shard_mb={_SHARD_MB}", "--overwrite", *_beam_flags(processes)]
    peak = _peak_resident(command)
    report(f"conversion_memory_{processes}_processes_{count}", peak / 1e9, "GB", target=1, at_least=False)


def _convert(images: Path, output: Path, check: str, processes: int) -> None:
    shutil.rmtree(output, ignore_errors=True)
    convert(str(images), str(output), shard_mb=_SHARD_MB, check=check, beam_options=_beam_flags(processes))


def _beam_flags(processes: int) -> list[str]:
    if processes == 1:
        return []
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]


def to_record(path: str) -> bytes:
    """Builds the same record as our job, with the same checks, in the usual way with TensorFlow."""
    data = Path(path).read_bytes()
    picture = check_picture(data, HEADER)
    described = {"name": os.path.basename(path)}
    values = shards.example_values(described, data, picture, hashlib.sha256(data).hexdigest())
    return tf.train.Example(
        features=tf.train.Features(feature={key: _feature(key, value) for key, value in values.items()})
    ).SerializeToString(deterministic=True)


def _feature(key: str, values: Sequence) -> tf.train.Feature:
    kind = schema.FEATURES[key].kind
    if kind == "bytes":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if kind == "int64":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _write_to_tfrecord(images: Path, output: Path) -> None:
    """Runs the job as in Beam's documentation: one element per image, sharded by the sink."""
    paths = sorted(str(path) for path in images.iterdir())
    shard_count = max(1, round(sum(os.path.getsize(path) for path in paths) / (_SHARD_MB * 1e6)))
    options = PipelineOptions([])
    with beam.Pipeline(runner=runner.create(options), options=options) as pipeline:
        (
            pipeline
            | beam.Create(paths)
            | beam.Reshuffle()
            | beam.Map(to_record)
            | beam.io.WriteToTFRecord(str(output / "train"), file_name_suffix=".tfrecord", num_shards=shard_count)
        )


def _peak_resident(command: list[str]) -> int:
    """Runs a command and returns the peak of its processes' total resident memory, in bytes."""
    process = child_process.start(command, stderr=subprocess.PIPE, text=True)
    # Read stderr while the command runs: a full pipe would block it.
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.read()))
    reader.start()
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        resident = 0
        for member in _family(root):
            try:
                resident += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, resident)
        time.sleep(0.05)
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said[0]}")
    return peak


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    command_line.run(main)

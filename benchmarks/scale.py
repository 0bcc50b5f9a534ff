"""Measures what a job of millions of images costs, and whether killing it costs anything but time.

In: photographs, repeated as in `benchmarks.conversion`.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's
    --kills=20       number of kills of the conversion, and of batch restoration

Out: one line per figure, and a calculated table.

    plan_memory, plan_seconds     planning and writing the shards of ten million images, whose listing is simulated
    plan_ratio                    time against only sorting the ten million names
    copy_ratio                    speed with --check=header on one core, against `cp` plus SHA-256 and CRC-32C of the
                                  files
    dask_ratio                    images/s of two Dask workers against one, --check=decode
    dask_ratio_plain              the same for plain decoding loops: what this machine's cores allow
    kills_conversion              of the jobs killed once at a random moment and run again, how many ended with other
    kills_restoration             bytes than a job that was never killed

Half of the kills hit only the main process, half all of its processes. Both sides of a ratio run alternately, and
medians are reported.

Command:

    python -m benchmarks.scale [--quick] [--only=plan --only=copy …]
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
from absl import flags
from PIL import Image

import pretrained
from benchmarks.data.photographs import decode_plainly, lay_out_copies
from benchmarks.measuring.figure import median_of_alternating, report
from common import child_process, command_line
from preprocessing.conversion.convert import convert
from tests.dask_cluster import dask_cluster

_QUICK = flags.DEFINE_bool("quick", False, "Fewer pictures, rounds and kills.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs to repeat.")
_KILLS = flags.DEFINE_integer("kills", 20, "Of the conversion, and of batch restoration.", 1)
_PARTS = ["plan", "copy", "dask", "conversion_kills", "restoration_kills", "table"]
_ONLY = flags.DEFINE_multi_enum("only", _PARTS, _PARTS, "Parts to measure.")

_RESTORED = 60

_COLLECTIONS = [  # name, number of images, bytes
    ("COCO val2017", 5_000, 815_585_330),
    ("COCO train2017", 118_287, 19_336_861_798),
    ("Open Images, 300 kB a picture", 9_000_000, 9_000_000 * 300e3),
    ("100 million, 300 kB a picture", 100_000_000, 100_000_000 * 300e3),
]
_PLANNED_FOR_TABLE = 1_000_000

_PLAN = """
import sys, tempfile, time
from common.storage import filesystem
from preprocessing.conversion import plan, splits
from preprocessing.conversion.coco import Annotations

count = int(sys.argv[1])

def listing(*unused):
    # In no order, as a file system lists them; names as Open Images has them.
    for index in range(count):
        name = (index * 0x9E3779B97F4A7C15) & (2**64 - 1)
        yield filesystem.File(f"train_{name >> 60:x}/{name:016x}.jpg", 80_000 + name % 440_000)

filesystem.list_files = listing
started = time.perf_counter()
found = plan.list_pictures("/pictures")
found.describe()
with tempfile.TemporaryDirectory() as folder:
    plans = plan.plan_shards(found, Annotations(), splits.parse_splits("train=1.0"), "/pictures", 128e6, 0, "decode")
    shards = sum(1 for each in plans if plan.write_plan(each, folder))
seconds = time.perf_counter() - started
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
names = [each.name for each in listing()]
started = time.perf_counter()
names.sort()
print(seconds, int(peak) * 1024, shards, time.perf_counter() - started)
"""


def main(argv: Sequence[str]) -> None:
    """Measures and prints the figures."""
    with tempfile.TemporaryDirectory(prefix="cleanplate-scale-") as folder:
        work = Path(folder)
        count, rounds = (1_000, 1) if _QUICK.value else (5_000, 3)
        images = work / "images"
        if set(_ONLY.value) - {"plan"}:
            lay_out_copies(_IMAGES.value, count, images)
        if "plan" in _ONLY.value:
            _measure_plan(1_000_000 if _QUICK.value else 10_000_000)
        if "copy" in _ONLY.value:
            _measure_copy(images, work, rounds)
        if "dask" in _ONLY.value:
            # More images here, because connecting, planning and grouping take the same time with one worker or two.
            lay_out_copies(_IMAGES.value, 3 * count, work / "many")
            _measure_dask(work / "many", work, rounds)
        kills = 3 if _QUICK.value else _KILLS.value
        if "conversion_kills" in _ONLY.value:
            _measure_kills_of_conversion(images, work, kills)
        if "restoration_kills" in _ONLY.value:
            _measure_kills_of_restoration(images, work, kills)
        if "table" in _ONLY.value:
            _print_table(images, work, rounds)


def _measure_plan(count: int) -> None:
    seconds, peak, shards, sorting = _plan(count)
    print(f"{count} pictures: {shards:.0f} shards planned")
    report("plan_memory", peak / 1e9, "GB", target=2, at_least=False)
    report("plan_seconds", seconds, "s", target=120, at_least=False)
    report("plan_ratio", seconds / sorting, "x")


def _plan(count: int) -> list[float]:
    """Returns planning seconds, peak resident bytes, number of shards, and the seconds to only sort the names."""
    done = child_process.run([sys.executable, "-c", _PLAN, str(count)], capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.split()]


def _measure_copy(images: Path, work: Path, rounds: int) -> None:
    def ours() -> None:
        _convert(images, work / "out", check="header")

    def copy_and_digest() -> None:
        shutil.rmtree(work / "copy", ignore_errors=True)
        child_process.run(["cp", "-r", images, work / "copy"], check=True)
        for path in images.iterdir():
            data = path.read_bytes()
            hashlib.sha256(data).digest()
            google_crc32c.value(data)

    with _one_core():
        ours()  # warm-up: the first Beam pipeline in a process is slower
        own, other = median_of_alternating([ours, copy_and_digest], rounds)
    report("copy_ratio", other / own, "x", target=0.5)


def _measure_dask(images: Path, work: Path, rounds: int) -> None:
    with dask_cluster(work / "one", 1) as one, dask_cluster(work / "two", 2) as two:
        functions = [
            lambda: _convert(images, work / "out", "decode", one.flags),
            lambda: _convert(images, work / "out", "decode", two.flags),
            lambda: decode_plainly(images, work, 1),
            lambda: decode_plainly(images, work, 2),
        ]
        for function in functions[:2]:  # warm-up: a worker's first task imports Beam
            function()
        alone, both, one_loop, two_loops = median_of_alternating(functions, rounds)
    report("dask_ratio", alone / both, "x", target=1.6)
    report("dask_ratio_plain", one_loop / two_loops, "x")


def _measure_kills_of_conversion(images: Path, work: Path, kills: int) -> None:
    command = [sys.executable, "-m", "preprocessing.coco_to_tfrecord", f"--images_dir={images}", "--shard_mb=4"]
    command += [f"--output_dir={work / 'dataset'}", "--splits=train=0.9,val=0.1"]
    command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    _measure_kills("kills_conversion", command, work / "dataset", kills)


def _measure_kills_of_restoration(images: Path, work: Path, kills: int) -> None:
    small = work / "small"
    small.mkdir()
    for path in sorted(images.iterdir())[:_RESTORED]:
        with Image.open(path) as image:
            image.resize((128, 128)).save(small / path.name)
    (small / "broken.jpg").write_bytes(path.read_bytes()[:5000])
    command = [sys.executable, "-m", "serving.batch_restore", f"--model={pretrained.GENERIC}", f"--input={small}"]
    command += [f"--output={work / 'restored'}", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    _measure_kills("kills_restoration", command, work / "restored", kills, exit_code=1)


def _measure_kills(name: str, command: list[str], output: Path, kills: int, exit_code: int = 0) -> None:
    """Runs a command once undisturbed; then runs, kills and reruns it `kills` times, and counts differing results."""
    started = time.perf_counter()
    _run(command, exit_code)
    seconds = time.perf_counter() - started
    expected = _digests(output)
    # Kills begin at 15 % of the time, because the start of Python and its imports are not under test.
    moments = [random.Random(kill).uniform(0.15, 0.95) * seconds for kill in range(kills)]
    different = in_time = 0
    for kill, moment in enumerate(moments):
        shutil.rmtree(output)
        job = child_process.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(moment)
        in_time += job.poll() is None
        if kill % 2:
            job.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        _run(command, exit_code)
        different += _digests(output) != expected
    print(f"{name}: {in_time} of {kills} were killed before they were done; {len(expected)} files compared each time")
    report(name, different, "different", target=0, at_least=False)


def _print_table(images: Path, work: Path, rounds: int) -> None:
    """Prints what whole collections would cost on one core, calculated from rates measured here."""
    size = sum(path.stat().st_size for path in images.iterdir())
    output = work / "out"
    with _one_core():
        _convert(images, output, "decode")
        decode, header, check = median_of_alternating(
            [
                lambda: _convert(images, output, "decode"),
                lambda: _convert(images, output, "header"),
                lambda: [_crc32c(path) for path in output.glob("*.tfrecord")],
            ],
            rounds,
        )
        plan, _, _, _ = _plan(_PLANNED_FOR_TABLE)
    print("| | pictures | bytes | shards of 128 MB | --check=header | --check=decode | planning | checking |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, pictures, total in _COLLECTIONS:
        columns = [name, f"{pictures:,}", f"{total / 1e12:.2g} TB" if total > 1e12 else f"{total / 1e9:.2g} GB"]
        columns.append(f"{max(1, round(total / 128e6)):,}")
        columns += [_duration(seconds / size * total) for seconds in (header, decode)]
        columns += [_duration(plan / _PLANNED_FOR_TABLE * pictures), _duration(check / size * total)]
        print(f"| {' | '.join(columns)} |")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _crc32c(path: Path) -> None:
    checksum = google_crc32c.Checksum()
    with open(path, "rb") as file:
        for _ in checksum.consume(file, 1 << 20):
            pass


def _run(command: list[str], exit_code: int) -> None:
    done = child_process.run(command, capture_output=True, text=True)
    if done.returncode != exit_code:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def _digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _convert(images: Path, output: Path, check: str, beam_options: Sequence[str] = ()) -> None:
    shutil.rmtree(output, ignore_errors=True)
    convert(str(images), str(output), shard_mb=16, check=check, beam_options=beam_options)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    command_line.run(main)

r"""Measures the embedded server, run in a separate process, under load, bad inputs and changing versions.

    python -m benchmarks.serving_load [--quick]

The model is `pretrained/generic`. Out: one line per figure.

    load_lost, load_wrong    requests from 64 clients that got no answer, or an answer that differs from the model's
                             in this process; a line above gives p50 and p99 relative to a single request on its own
    load_memory              server's resident memory after 5,000 requests, divided by that after 500
    bad_inputs_unanswered    of 300 bad inputs (truncated, bits flipped, bombs, wrong magic, empty, 1 x 1, 30000 x 1,
                             CMYK, animated), those without a proper answer: an image or INVALID_ARGUMENT, after which
                             the next good image is restored correctly
    swap_failed              requests that failed while a new version appeared every 2 seconds for a minute
    memory_24_megapixels     GB that the server's peak memory grows by when it restores 6000 x 4000 pixels
    time_24_megapixels       seconds per pixel of that image, divided by those of a 6-megapixel image
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import tensorflow as tf
from absl import flags
from PIL import Image
from skimage import data
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import pretrained
from benchmarks.measuring.figure import report
from common import child_process, command_line
from common.versions import new_version

_QUICK = flags.DEFINE_bool("quick", False, "Fewer requests.")
_CLIENTS = 64
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextlib.contextmanager
def _server(base_path: Path, *flags_: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a server and yields its address and process."""
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={base_path}", "--port=0", *flags_]
    with child_process.start(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split(" at ")[1].split()[0], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()  # before closing the pipe, because the server still prints that it stops


class _Client:
    """A client that sends files and returns the pixels of the answers."""

    def __init__(self, address: str):
        self._channel = grpc.insecure_channel(address, [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def restored(self, file: bytes) -> np.ndarray:
        """Sends a file and returns the restored image's pixels; raises grpc.RpcError if the request fails."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "cleanplate"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([file]))
        answer = self._stub.Predict(request, timeout=600)
        return np.asarray(Image.open(io.BytesIO(answer.outputs["restored_bytes"].string_val[0])))

    def close(self) -> None:
        self._channel.close()


def _file(pixels: np.ndarray, image_format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def _load(quick: bool) -> None:
    photo, rng = data.astronaut(), np.random.default_rng(0)
    crops = [photo[y : y + 64, x : x + 64] for y, x in rng.integers(0, 448, (16, 2))]
    model = tf.saved_model.load(str(pretrained.GENERIC / "1"))
    expected = [model.signatures["restore"](images=tf.constant(crop[None]))["restored"].numpy()[0] for crop in crops]
    files = [_file(crop) for crop in crops]
    first, last = (50, 200) if quick else (500, 5000)
    counted = 100 if quick else 2000
    lock, numbers, seconds, lost, wrong, memory = threading.Lock(), iter(range(last)), [], [], [], {}
    with _server(pretrained.GENERIC) as (address, process):
        alone, client = [], _Client(address)
        for _ in range(20):
            started = time.perf_counter()
            client.restored(files[0])
            alone.append(time.perf_counter() - started)

        def ask_on() -> None:
            own = _Client(address)
            while True:
                with lock:
                    number = next(numbers, None)
                    if number in (first, last - 1):
                        memory[number] = process.memory_info().rss
                if number is None:
                    return own.close()
                started = time.perf_counter()
                try:
                    answer = own.restored(files[number % len(files)])
                except grpc.RpcError as error:
                    lost.append(error.code().name)
                    continue
                if number < counted:
                    seconds.append(time.perf_counter() - started)
                if not np.array_equal(answer, expected[number % len(files)]):
                    wrong.append(number)

        with futures.ThreadPoolExecutor(_CLIENTS) as executor:
            for job in [executor.submit(ask_on) for _ in range(_CLIENTS)]:
                job.result()
    p50, p99 = np.percentile(seconds, [50, 99]) / np.median(alone)
    print(
        f"{_CLIENTS} clients, {last} requests; of the first {counted} p50 {p50:.1f} and p99 {p99:.1f} times one alone"
    )
    report("load_lost", len(lost), "requests", 0, at_least=False)
    report("load_wrong", len(wrong), "requests", 0, at_least=False)
    report("load_memory", memory[last - 1] / memory[first], "x", 1.05, at_least=False)


def _bad_inputs(count: int) -> list[bytes]:
    photo, rng = data.astronaut()[:96, :128], np.random.default_rng(1)
    frames = [Image.fromarray(photo[::-1]), Image.fromarray(photo)]
    whole = [
        _file(photo, "JPEG"), _file(photo, "JPEG", progressive=True), _file(photo), _file(photo, "PNG", "RGBA"),
        _file(photo, "GIF", "P"), _file(photo, "BMP"), _file(photo, "JPEG", "L"),
    ]  # fmt: skip
    odd = [
        b"",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"text, not a picture",
        _file(photo, "TIFF"),
        _file(photo, "WEBP"),
        b"\x89PNG" + _file(photo, "JPEG")[4:],
        _file(photo[:1, :1]),
        _file(photo[:1, :1], "JPEG"),
        _file(np.zeros((1, 30000, 3), np.uint8)),
        _file(np.zeros((30000, 1, 3), np.uint8), "JPEG"),
        _file(photo, "JPEG", "CMYK"),
        _file(photo, "GIF", "P", save_all=True, append_images=frames),
        _file(photo, "PNG", save_all=True, append_images=frames),
    ]
    for image_format in ("PNG", "GIF", "BMP"):  # bombs: small files that claim a size above the limit
        bomb = bytearray(_file(photo[:4, :4], image_format, "P" if image_format == "GIF" else "RGB"))
        start, coded = {
            "PNG": (16, (60000).to_bytes(4, "big") * 2),
            "GIF": (6, (60000).to_bytes(2, "little") * 2),
            "BMP": (18, (60000).to_bytes(4, "little") * 2),
        }[image_format]
        bomb[start : start + len(coded)] = coded
        odd.append(bytes(bomb))
    while len(odd) < count:
        file = bytearray(whole[rng.integers(len(whole))])
        if rng.random() < 0.5:
            file = file[: rng.integers(len(file))]
        else:
            for position in rng.integers(0, len(file), rng.integers(1, 20)):
                file[position] ^= 1 << rng.integers(8)
        odd.append(bytes(file))
    return odd[:count]


def _survive(count: int) -> None:
    good = data.astronaut()[100:164, 200:264]
    unanswered, codes = 0, {}
    with _server(pretrained.GENERIC) as (address, process):
        client = _Client(address)
        expected = client.restored(_file(good))
        loaded = process.memory_info().rss
        for number, file in enumerate(_bad_inputs(count)):
            try:
                client.restored(file)
                said = "a picture"
            except grpc.RpcError as error:
                said = error.code().name
            codes[said] = codes.get(said, 0) + 1
            is_answered = said in ("a picture", "INVALID_ARGUMENT")
            if not is_answered or not np.array_equal(client.restored(_file(good)), expected):
                unanswered += 1
                print(
                    f"input {number}: {said}, then not the right answer" if is_answered else f"input {number}: {said}"
                )
        grown = process.memory_info().rss / loaded
    print(f"{codes}; the server's memory is {grown:.2f} times what it was")
    report("bad_inputs_unanswered", unanswered, "inputs", 0, at_least=False)


def _swap(folder: Path, seconds: float) -> None:
    def add() -> None:
        with new_version(folder) as new:
            child_process.run(["cp", "-r", f"{pretrained.GENERIC / '1'}/.", new.folder], check=True)

    add()
    file, failed, answered, done = _file(data.astronaut()[:64, :64]), [], [], threading.Event()
    with _server(folder, "--file_system_poll_wait_seconds=0.2") as (address, _):

        def ask_on() -> None:
            client = _Client(address)
            while not done.is_set():
                try:
                    client.restored(file)
                    answered.append(1)
                except grpc.RpcError as error:
                    failed.append(error.code().name)

        with futures.ThreadPoolExecutor(8) as executor:
            askers = [executor.submit(ask_on) for _ in range(8)]
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(2)
                add()
            done.set()
            for asker in askers:
                asker.result()
    print(f"{len(answered)} requests answered over {len(list(folder.glob('[0-9]*')))} versions")
    report("swap_failed", len(failed), "requests", 0, at_least=False)


def _large() -> None:
    rng, peak, done = np.random.default_rng(0), [0], threading.Event()
    large = np.asarray(Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((6000, 4000)))
    seconds = {}
    with _server(pretrained.GENERIC) as (address, process):

        def watch() -> None:
            while not done.wait(0.01):
                peak[0] = max(peak[0], process.memory_info().rss)

        client = _Client(address)
        client.restored(_file(large[:64, :64]))
        loaded = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        for height, width in ((2000, 3000), (4000, 6000)):
            file = _file(large[:height, :width], "JPEG")
            started = time.perf_counter()
            client.restored(file)
            seconds[height * width] = time.perf_counter() - started
        done.set()
        watcher.join()
    report("memory_24_megapixels", (peak[0] - loaded) / 1e9, "GB", 1.5, at_least=False)
    per_pixel = [taken / pixels for pixels, taken in seconds.items()]
    report("time_24_megapixels", per_pixel[1] / per_pixel[0], "x", 1.2, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Runs all measurements, one after the other."""
    command_line.refuse_positional(argv)
    quick = _QUICK.value
    _load(quick)
    _survive(60 if quick else 300)
    with tempfile.TemporaryDirectory() as folder:
        _swap(Path(folder), 8 if quick else 60)
    _large()


if __name__ == "__main__":
    command_line.run(main)

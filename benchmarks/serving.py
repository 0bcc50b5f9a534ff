r"""Measures the SavedModel: image sizes preserved, tiled against untiled, and the server against in-process calls.

    python -m benchmarks.serving [--quick]

It uses the default network with random weights, because speed and seams do not depend on what was learned.

Out: one line per figure.

    sizes_changed           number of images that came back in another size, of sizes from 1 x 1 up
    tiled_difference        largest difference between tiled and untiled inference, in gray levels
    grpc_against_in_process time of a 640 x 480 request over gRPC, divided by that of calling the model in this process
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image
from skimage import data
from tensorflow_serving.config import model_server_config_pb2

from benchmarks.measuring.figure import median_of_alternating, report
from common import command_line
from configs import default
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.restoring.remote import Restorer
from serving.savedmodel.writer import write_saved_model
from training import models

_QUICK = flags.DEFINE_bool("quick", False, "Fewer sizes and rounds.")
_SIZES = [(1, 1), (1, 500), (3, 2), (17, 31), (300, 1), (255, 257), (480, 640), (700, 900)]


def _export(folder: Path, **limits: int) -> str:
    model = models.build(default.get_config())
    rng = np.random.default_rng(0)
    for variable in model.network.trainable_variables:
        # Large enough to change every pixel, so that a seam would show.
        variable.assign_add(rng.normal(0, 0.02, variable.shape))
    return str(write_saved_model(model.network, stride=model.stride, halo=model.halo, export_dir=str(folder), **limits))


def _figures(folder: Path, quick: bool) -> None:
    photo = np.tile(data.astronaut(), (2, 2, 1))
    untiled_path = _export(folder / "untiled", max_untiled_pixels=10**8)
    untiled = tf.saved_model.load(untiled_path)
    tiled = tf.saved_model.load(_export(folder / "tiled", max_untiled_pixels=0, tile=256))
    changed, difference, effect = 0, 0, []
    for height, width in _SIZES[:6] if quick else _SIZES:
        picture = photo[None, :height, :width]
        restored = [
            model.signatures["restore"](images=tf.constant(picture))["restored"].numpy().astype(int)
            for model in (untiled, tiled)
        ]
        changed += sum(result.shape != picture.shape for result in restored)
        difference = max(difference, np.abs(restored[0] - restored[1]).max())
        effect.append(np.abs(restored[0] - picture).mean())
    print(f"{len(effect)} sizes; the network changes a picture by {np.mean(effect):.1f} levels on average")
    report("sizes_changed", changed, "pictures", 0, at_least=False)
    report("tiled_difference", float(difference), "levels", 1, at_least=False)

    encoded = io.BytesIO()
    Image.fromarray(photo[:480, :640]).save(encoded, "PNG")
    request = encoded.getvalue()
    served = model_server_config_pb2.ModelConfig(name="cleanplate", base_path=str(folder / "untiled"))
    with (
        ModelStore([served], poll_seconds=0) as store,
        Endpoint(store) as endpoint,
        Restorer(endpoint.address) as client,
    ):
        in_process = untiled.signatures["serving_default"]
        functions = [
            lambda: client.restore_bytes(request),
            lambda: in_process(image_bytes=tf.constant([request]))["restored_bytes"].numpy(),
        ]
        for function in functions:
            function()
        over_grpc, direct = median_of_alternating(functions, 5 if quick else 200)
    report("grpc_against_in_process", over_grpc / direct, "x", 1.05, at_least=False)


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as folder:
        _figures(Path(folder), _QUICK.value)


if __name__ == "__main__":
    command_line.run(main)

"""Keyed exports in TensorFlow 2.21, as people install it today, with oneDNN on as it is there on new processors.

`make .venv-tf221/installed` makes the environment; `.ci/run` does. Without it these tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from preprocessing.marks import draw
from serving.key import key
from tests.marks import CANVASES, corner_for, lay

pytestmark = pytest.mark.tf221

PYTHON = Path(__file__).parents[3] / ".venv-tf221" / "bin" / "python"
# The wide one ended the process on an AVX-512 processor when the graph still multiplied stacks of matrices.
MARKS = {
    **{name: CANVASES[name] for name in ("white and dark", "red", "one stamp")},
    "wide": draw.tile(draw.text_stamp("Sample", size=36), size=1000, gap=14, rotate=20),
}
SIZES = [(1, 1), (33, 47), (240, 320), (480, 640), (900, 1200)]

_PROGRAM = """
import json, sys
import numpy as np, tensorflow as tf
assert tf.__version__.startswith("2.21."), tf.__version__
signature, given, results = tf.saved_model.load(sys.argv[1]).signatures["restore"], np.load(sys.argv[2]), {}
for name in given:
    outputs = signature(images=tf.constant(given[name][None]))
    results[name] = outputs["restored"].numpy()[0]
np.savez(sys.argv[3], **results)
"""


@pytest.fixture(scope="module", params=MARKS)
def exported(request, tmp_path_factory):
    """A canvas, and its export with the command's defaults."""
    folder = tmp_path_factory.mktemp("newer")
    MARKS[request.param].save(folder / "mark.png")
    return np.asarray(MARKS[request.param]), key(str(folder / "mark.png"), str(folder / "export"))


def test_no_stack_of_matrices_meets_a_single_one(exported):
    """oneDNN in TensorFlow 2.21 writes beyond its memory in such products: tensorflow#117700."""
    saved = saved_model_pb2.SavedModel.FromString((exported[1] / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    operations = {node.op for function in graph.library.function for node in function.node_def}
    assert "MatMul" in operations
    assert not operations & {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}


@pytest.mark.skipif(not PYTHON.exists(), reason="no TensorFlow 2.21 here; make .venv-tf221/installed brings it")
def test_tensorflow_2_21_restores_what_this_one_does(exported, tmp_path):
    mark, version = exported
    here = tf.saved_model.load(str(version)).signatures["restore"]
    rng, marked, covered, expected = np.random.default_rng(4), {}, {}, {}
    for size in SIZES:
        name = f"{size[0]}x{size[1]}"
        clean = np.asarray(Image.fromarray(skimage.data.coffee()).resize(size[::-1], Image.Resampling.LANCZOS))
        corner = corner_for(mark, min(size), rng) if min(size) > 300 else (0, 0)
        marked[name], covered[name] = lay(clean, mark, corner, 0.9)
        expected[name] = here(images=tf.constant(marked[name][None]))["restored"].numpy()[0]
        if size == (480, 640):
            before, after = (np.square(image[covered[name]].astype(float) - clean[covered[name]]).mean()
                             for image in (marked[name], expected[name]))  # fmt: skip
            assert 10 * np.log10(before / after) > 15
    np.savez(tmp_path / "marked.npz", **marked)
    command = [PYTHON, "-c", _PROGRAM, version, tmp_path / "marked.npz", tmp_path / "restored.npz"]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "1"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "restored.npz") as found:
        apart = {name: np.abs(found[name].astype(int) - expected[name]) for name in expected}
    worst = {name: (int(levels.max()), float(levels.mean())) for name, levels in apart.items()}
    assert all(mean < 0.02 for _, mean in worst.values()), json.dumps(worst)

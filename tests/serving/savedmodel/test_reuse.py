"""An export is of use elsewhere: each block of docs/reuse.md, run as it stands there, gives what `restore` gives."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from configs import default
from serving.export import export as export_workdir
from serving.savedmodel import portable
from tests.serving.conftest import SmallNetwork, export, load
from training import models

pytestmark = pytest.mark.slow

_DOCUMENT = pathlib.Path(__file__).parents[3] / "docs" / "reuse.md"
_KERAS_3 = "tensorflow-cpu==2.16.*"  # the smallest of those with Keras 3
_SHAPES = [(1, 1, 1), (1, 1, 9), (2, 33, 47), (1, 64, 96), (1, 301, 203)]

_HAS_ONNX = all(map(importlib.util.find_spec, ("tf2onnx", "onnx", "onnxruntime")))

needs_onnx = pytest.mark.skipif(not _HAS_ONNX, reason="needs the extra onnx: pip install 'cleanplate[onnx]'")


def _blocks(heading, language="python|sh"):
    """The code under a heading of the document, a string a block; under "" what stands before the first."""
    sections = re.split(r"^## (.*)\n", _DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = dict(zip(["", *sections[1::2]], sections[::2]))[heading]
    return re.findall(rf"^```(?:{language})\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def _run(*blocks, **names):
    """Runs blocks one after the other and returns the names that they leave."""
    for block in blocks:
        exec(compile(block, str(_DOCUMENT), "exec"), names)
    return names


def _differ(one, other):
    """The largest difference in levels, of pictures that must be of one shape and uint8."""
    assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
    return np.abs(one.astype(int) - other).max()


def _pixels(photo, shape):
    """Pieces of a photograph, a different one for each in the batch: uint8 [N, H, W, 3]."""
    count, height, width = shape
    return np.stack([photo[9 * k : 9 * k + height, 5 * k : 5 * k + width] for k in range(count)])


def _network(name):
    """A small network of that name which, unlike a fresh one, changes pictures, with its stride and halo."""
    config = default.get_config()
    features = (6,) if name == "srresnet" else (6, 8)
    config.model.update({"name": name, "features": features, "blocks": (1,) * len(features), "window": 5})
    restorer = models.build(config)
    rng = np.random.default_rng(0)
    for variable in restorer.network.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.1, variable.shape))
    return restorer.network, {"stride": restorer.stride, "halo": restorer.halo}


@pytest.fixture(scope="module")
def place(tmp_path_factory, photo):
    """The folder that the document's commands are run in: `photo.jpg`, and `runs/demo/export/1` with both files."""
    folder = tmp_path_factory.mktemp("reuse")
    network, geometry = _network("unet")
    export_dir = folder / "runs" / "demo" / "export"
    export(network, export_dir, **geometry, tile=64, max_untiled_pixels=9999, tflite=True, onnx=_HAS_ONNX)
    Image.fromarray(photo[:301, :203]).save(folder / "photo.jpg")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def pixels(place):
    return np.asarray(Image.open(place / "photo.jpg").convert("RGB"))[np.newaxis]


@pytest.fixture(scope="module")
def small(place):
    """`restore` of the SavedModel, under this TensorFlow."""
    loaded = load(place / "runs" / "demo" / "export" / "1")
    return lambda images: loaded.signatures["restore"](images=tf.constant(images))["restored"].numpy()


@pytest.fixture(scope="module")
def expected(small, pixels):
    restored = small(pixels)
    assert np.abs(restored.astype(int) - pixels).mean() > 5, "a network that changes nothing would prove nothing"
    return restored


def test_the_document_reads_pictures_as_the_tests_do(here, pixels):
    np.testing.assert_array_equal(_run(*_blocks("", "python"))["pixels"], pixels)


def test_saved_model_cli_shows_and_runs_it(place, expected):
    [commands] = _blocks("saved_model_cli")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "inputs['images']" in done.stdout and "shape: (-1, -1, -1, 3)" in done.stdout
    assert _differ(np.load(place / "restored" / "restored.npy"), expected) <= 1


@pytest.fixture(scope="module")
def keras_3(pytestconfig):
    """The Python of an environment whose TensorFlow brings Keras 3; made once and kept in pytest's cache."""
    home = pathlib.Path(pytestconfig.cache.mkdir("keras3")) / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=home.parent) as folder:
            made = pathlib.Path(folder) / "environment"
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
            install = [sys.executable, "-m", "pip", "--python", made / "bin" / "python", "install", "--quiet"]
            done = subprocess.run(
                [*install, "--only-binary=:all:", _KERAS_3], capture_output=True, text=True, check=False
            )
            if "(from versions: none)" in done.stderr:
                pytest.skip(f"pip finds no {_KERAS_3} for this machine, or cannot reach its index")
            assert done.returncode == 0, done.stderr[-2000:]
            made.rename(home)  # in one step: what was interrupted is not taken for whole
    return home / "bin" / "python"


def test_newer_tensorflow_and_keras_3_run_it(keras_3, place, pixels, expected, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    script = ["import numpy as np, sys", f"pixels = np.load({str(tmp_path / 'pixels.npy')!r})"]
    blocks = _blocks("TensorFlow 2.16 and newer")
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        script += [block, f"np.save({str(tmp_path / f'{number}.npy')!r}, restored)"]
    script += ["assert not {'serving', 'training', 'common'} & sys.modules.keys()"]
    script += ["print(tf.__version__, keras.__version__)"]
    done = subprocess.run(
        [keras_3, "-I", "-c", "\n".join(script)], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tensorflow, keras = (tuple(map(int, version.split(".")[:2])) for version in done.stdout.split())
    assert tensorflow >= (2, 16) and keras >= (3, 0)
    for number in range(len(blocks)):
        assert _differ(np.load(tmp_path / f"{number}.npy"), expected) <= 1


def test_tensorflow_lite_runs_it_at_any_size(here, pixels, expected, small, photo):
    left = _run(*_blocks("TensorFlow Lite"), pixels=pixels)
    assert _differ(left["restored"], expected) <= 1
    for shape in _SHAPES:
        images = _pixels(photo, shape)
        assert _differ(left["restore"](images=images)["restored"], small(images)) <= 1


def test_tensorflow_lite_runs_it_resized_by_hand(place, small, photo):
    interpreter = tf.lite.Interpreter(str(place / "runs" / "demo" / "export" / "1" / "restore.tflite"))
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    for shape in _SHAPES:
        images = _pixels(photo, shape)
        interpreter.resize_tensor_input(taken["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], images)
        interpreter.invoke()
        assert _differ(interpreter.get_tensor(given["index"]), small(images)) <= 1


@needs_onnx
def test_onnxruntime_runs_it_at_any_size(here, pixels, expected, small, photo):
    left = _run(*_blocks("ONNX"), pixels=pixels)
    assert _differ(left["restored"], expected) <= 1
    [taken], [given] = left["session"].get_inputs(), left["session"].get_outputs()
    assert (taken.name, taken.shape) == ("images", ["batch", "height", "width", 3])
    assert (given.name, given.shape) == ("restored", ["batch", "height", "width", 3])
    for shape in _SHAPES:
        images = _pixels(photo, shape)
        assert _differ(left["session"].run(["restored"], {"images": images})[0], small(images)) <= 1


@needs_onnx
def test_large_pictures_cut_as_the_document_does_equal_the_whole(here, photo, small):
    whole = photo[np.newaxis, :301, :403]
    left = _run(*_blocks("ONNX"), *_blocks("Large pictures"), pixels=whole, np=np)
    assert left["tile"] == 64 and 0 < left["halo"] < 64
    np.testing.assert_array_equal(left["restored"], left["session"].run(["restored"], {"images": whole})[0])
    assert _differ(left["restored"], small(whole)) <= 1


@needs_onnx
@pytest.mark.parametrize("name", ["srresnet", "nafnet"])
def test_the_other_networks_go_both_ways(name, tmp_path, photo):
    network, geometry = _network(name)
    images = _pixels(photo, (2, 61, 83))
    version = export(network, tmp_path, **geometry, tflite=True, onnx=True)
    restored = load(version).signatures["restore"](images=tf.constant(images))["restored"].numpy()
    assert np.abs(restored.astype(int) - images).mean() > 2
    left = {"pixels": images}
    for heading, file in (("TensorFlow Lite", portable.TFLITE_FILE), ("ONNX", portable.ONNX_FILE)):
        [block] = _blocks(heading)
        left = _run(block.replace(f"runs/demo/export/1/{file}", str(version / file)), pixels=images)
        assert _differ(left["restored"], restored) <= 1, heading


def test_without_the_flags_there_are_no_such_files(export_dir):
    assert not list((export_dir / "1").glob("restore.*"))


def test_a_conversion_that_fails_leaves_no_version(tmp_path):
    def solves(images):  # an operator that TensorFlow Lite does not have
        return images * tf.reduce_sum(tf.linalg.cholesky(tf.eye(2) * (1.0 + images[0, 0, 0, 0])))

    with pytest.raises(Exception, match="Cholesky"):
        export(solves, tmp_path, tflite=True)
    assert os.listdir(tmp_path) == []


def test_a_missing_extra_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match=r"^--onnx: .*tf2onnx.*; pip install 'cleanplate\[onnx\]'"):
        export_workdir(str(tmp_path / "nowhere"), str(tmp_path / "out"), onnx=True)
    with pytest.raises(UserError, match="--onnx"):
        export(SmallNetwork(), tmp_path / "out", onnx=True)
    assert os.listdir(tmp_path) == []


def test_nothing_is_printed_while_it_is_converted(tmp_path, capfd):
    network, geometry = _network("srresnet")
    export(network, tmp_path, **geometry, tflite=True)
    assert "non-converted" not in capfd.readouterr().err
    print("still there", file=sys.stderr)
    assert capfd.readouterr().err == "still there\n"

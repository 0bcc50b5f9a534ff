"""Every kind of export answers every size by every way that it is asked, with the right image."""

import io
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

import pretrained
from serving.batch.job import restore_batch
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.key import key
from serving.restoring.folder import restore_folder
from serving.restoring.remote import Restorer
from serving.restoring.video import restore_video
from serving.savedmodel import proof
from serving.web.uploads import Comparison, Upload, restore_uploads
from tests.marks import CANVASES, lay
from tests.serving.conftest import encoded, model_config

pytestmark = pytest.mark.slow

SIZES = [(1, 1), (2, 3), (47, 33), (480, 640)]  # height and width
LARGE = (4000, 6000)
KINDS = ["blind", "field", "stamp", "stamp_as_it_is"]
CANVAS = {"field": "white and dark", "stamp": "one stamp", "stamp_as_it_is": "one stamp"}
# Where the mark lies on the image of 480 x 640: a field fills it, a stamp is somewhere inside.
CORNER = {"field": (-60, -20), "stamp": (300, 90), "stamp_as_it_is": (300, 90)}


def _photograph(size):
    """A photograph of any size, uint8 [H, W, 3]."""
    image = Image.fromarray(skimage.data.astronaut())
    return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS))


def _marked(kind, size):
    """The photograph with the kind's mark, and where that covers it."""
    clean = _photograph(size)
    if kind == "blind" or min(size) < 400:
        return clean, np.zeros(size, bool)
    canvas = np.asarray(CANVASES[CANVAS[kind]])
    return lay(clean, canvas, CORNER[kind], 0.9)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder of versions per kind, each written with its command's default flags but for `stamp_as_it_is`."""
    folder = tmp_path_factory.mktemp("exports")
    folders = {"blind": pretrained.GENERIC}
    for kind, canvas in CANVAS.items():
        CANVASES[canvas].save(folder / f"{kind}.png")
        flags = {"scale": "1", "rotate": "0"} if kind == "stamp_as_it_is" else {}
        folders[kind] = key(str(folder / f"{kind}.png"), str(folder / kind), **flags).parent
    return folders


@pytest.fixture(scope="module")
def address(exports):
    configs = [model_config(kind, folder) for kind, folder in exports.items()]
    with ModelStore(configs, poll_seconds=0) as store, Endpoint(store) as endpoint:
        yield endpoint.address


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    """A PNG per size."""
    folder = tmp_path_factory.mktemp("images")
    for size in SIZES:
        (folder / f"{size[0]}x{size[1]}.png").write_bytes(encoded(_marked(kind, size)[0]))
    return folder


def _judge(kind, size, restored):
    """What covered pixels gained in dB; nothing else may have changed under a known mark."""
    given, covered = _marked(kind, size)
    assert restored.shape == given.shape and restored.dtype == np.uint8
    if kind != "blind":
        # Not one value of 480 x 640; among 72 million a few lie at the very threshold from which a pixel is covered.
        assert (restored[~covered] != given[~covered]).mean() < 1e-6
    if not covered.any():
        return None
    clean = _photograph(size).astype(float)
    before, after = (np.square(image[covered] - clean[covered]).mean() for image in (given, restored))
    gain = 10 * np.log10(before / after)
    assert gain > 20, f"{kind} {size}: {gain:.1f} dB"
    return gain


def _judge_folder(kind, folder):
    for size in SIZES:
        _judge(kind, size, np.asarray(Image.open(folder / f"{size[0]}x{size[1]}.png")))


@pytest.fixture(scope="module")
def by_client(kind, folder, address, tmp_path_factory):
    out = tmp_path_factory.mktemp("client")
    with Restorer(address, kind) as restorer:
        return out, restore_folder(restorer, folder, out, progress=False)


def test_the_client_restores_every_size(kind, by_client):
    out, summary = by_client
    assert not summary.failures and summary.restored == (1 if kind != "blind" else summary.restored)
    _judge_folder(kind, out)


def test_batch_restoration_writes_the_client_s_bytes(kind, by_client, folder, exports, tmp_path):
    summary = restore_batch(exports[kind], folder, tmp_path / "out", progress=False)
    assert not summary.failures
    for size in SIZES:
        name = f"{size[0]}x{size[1]}.png"
        assert (tmp_path / "out" / name).read_bytes() == (by_client[0] / name).read_bytes(), name


def test_the_app_s_uploads_are_the_client_s_bytes(kind, by_client, folder, address, tmp_path):
    uploads = [Upload(f"{size[0]}x{size[1]}.png", folder / f"{size[0]}x{size[1]}.png") for size in SIZES]
    with Restorer(address, kind) as restorer:
        outcomes = list(restore_uploads(restorer, uploads, tmp_path))
    assert all(isinstance(outcome, Comparison) for outcome in outcomes), outcomes
    for outcome in outcomes:
        assert outcome.restored.read_bytes() == (by_client[0] / outcome.name).read_bytes(), outcome.name


@pytest.mark.parametrize("size", SIZES)
def test_videos_of_every_size_are_restored(kind, size, address, tmp_path):
    given, covered = _marked(kind, size)
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{size[1]}x{size[0]}", "-r", "10", "-i", "-", "-c:v", "ffv1", "-pix_fmt", "bgr0", source]
    subprocess.run(command, input=given.tobytes() * 2, check=True)
    with Restorer(address, kind) as restorer:
        restore_video(restorer, source, target, progress=False)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", target, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(frames) == 2 * given.size
    if covered.any():
        restored = np.frombuffer(frames, np.uint8).reshape(2, *given.shape)
        clean = _photograph(size).astype(float)
        before, after = (np.square(frame[covered] - clean[covered]).mean() for frame in (given, restored[1]))
        assert 10 * np.log10(before / after) > 10  # H.264 and 4:2:0 chroma cost the rest


_ALONE = """
import sys
import numpy as np, tensorflow as tf
signature, given = tf.saved_model.load(sys.argv[1]).signatures["restore"], np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: signature(images=tf.constant(given[name][None]))["restored"][0] for name in given})
assert not {"training", "serving", "common", "configs", "preprocessing"} & sys.modules.keys()
"""


def test_tensorflow_alone_makes_the_same_of_it(kind, by_client, exports, tmp_path):
    np.savez(tmp_path / "given.npz", **{f"{size[0]}x{size[1]}": _marked(kind, size)[0] for size in SIZES})
    # -I keeps the checkout off the path.
    command = [sys.executable, "-I", "-c", _ALONE, exports[kind] / "1", tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(command, check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        for size in SIZES:
            name = f"{size[0]}x{size[1]}"
            _judge(kind, size, found[name])
            np.testing.assert_array_equal(found[name], np.asarray(Image.open(by_client[0] / f"{name}.png")))


def test_24_megapixels_are_restored(address):
    given, covered = _marked("stamp", LARGE)
    file = io.BytesIO()
    Image.fromarray(given).save(file, "PNG", compress_level=1)
    with Restorer(address, "stamp", deadline_seconds=300) as restorer:
        answer = restorer.ask(file.getvalue())
    assert answer.found
    _judge("stamp", LARGE, np.asarray(Image.open(io.BytesIO(answer.restored_bytes))))


@pytest.mark.parametrize("canvas_size", [(1, 1), (40, 1)])
def test_the_smallest_marks_make_exports_that_leave_images_alone(canvas_size, tmp_path):
    Image.fromarray(np.full((*canvas_size, 4), 200, np.uint8)).save(tmp_path / "mark.png")
    version = key(str(tmp_path / "mark.png"), str(tmp_path / "export"), repair="")
    signature = tf.saved_model.load(str(version)).signatures["restore"]
    for size in SIZES:
        given = _photograph(size)[None]
        found = signature(images=tf.constant(given))
        assert not found["found"].numpy().any()
        np.testing.assert_array_equal(found["restored"], given)


def test_a_mark_of_16_megapixels_is_found(tmp_path):
    rng = np.random.default_rng(3)
    mark = np.tile(np.asarray(CANVASES["white and dark"]), (7, 7, 1))[:4000, :4000].copy()
    mark[..., 3] = mark[..., 3] * rng.uniform(0.9, 1.0, (4000, 1))
    Image.fromarray(mark).save(tmp_path / "mark.png")
    command = [sys.executable, "-m", "serving.key", f"--canvas={tmp_path}/mark.png", f"--export_dir={tmp_path}/export"]
    subprocess.run(command, check=True)
    clean = _photograph((480, 640))
    laid, covered = lay(clean, mark, (-1700, -2100), 0.9)
    found = proof.outputs(tmp_path / "export" / "1", laid[None])
    before, after = (np.square(i[covered].astype(float) - clean[covered]).mean() for i in (laid, found["restored"][0]))
    assert found["found"][0] and 10 * np.log10(before / after) > 15

"""The shell that README.md and docs/*.md show is run as it stands there, and what it wrote is judged.

Each document gets a folder of its own, which holds what its commands assume: pictures, a mark, a dataset, a run. Its
commands are then run in order. One that starts a server leaves it on until the document ends. After each command, what
it was to do is checked; a command that no check knows fails.
"""

import contextlib
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request

import imageio_ffmpeg
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from preprocessing.marks import draw
from tests.commands import ROOT, check_flags, flags_of, shell_of, words_of

pytestmark = pytest.mark.slow

_DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that are not run, by what is in them, and why. Flags of ours in them are checked.
_NOT_RUN = {
    r"^make ": "makes an environment of 2 GB; test_demo.py, test_wheel.py and test_app.py run what is behind it",
    r"^pip install ": "an environment of 2 GB; test_wheel.py installs the wheel",
    r"preprocessing\.download": "gigabytes from COCO's server; test_download.py runs it against a local one",
    r"docker ": "needs Docker",
    r"request\.json": "the REST API is TF Serving's, which needs Docker",
    r"10\.0\.0\.1": "needs several machines; test_runners.py runs the job on a Dask cluster of this one",
    r"DataflowRunner|gcloud ": "needs Google's cloud",
    r"FlinkRunner|SparkRunner|PortableRunner": "needs a cluster; test_runners.py runs Beam's portable job server",
    r"s3://|export AWS_": "needs an object store; test_runners.py and test_object_storage.py run them on a local one",
    r"TF_CONFIG|multi_worker": "needs two machines; test_workers.py runs two workers on this one",
    r"^kubectl ": "needs Kubernetes; test_kubernetes.py checks the file against its schemas",
    r"benchmarks\.workers": "takes twenty minutes",
}

# What is written otherwise so that a document takes a minute rather than hours, in these documents.
_SUBSTITUTED = {
    # Two steps, from the model that comes along: see _BRIEF.
    "--config=default": "--config=brief.py",
    # Two steps in the place of ten minutes: see _BRIEF_REFINE.
    "--refine=refine": "--refine=brief_refine.py",
    # Of eight pictures, where COCO has 118,287; and more than one shard of them.
    "--splits=train=113287,val=5000": "--splits=train=6,val=2",
    "--splits=train=0.9,val=0.1 --shard_mb=128": "--splits=train=0.75,val=0.25 --shard_mb=0.05",
    "--direct_num_workers=8": "--direct_num_workers=2",
    # Ports of their own: other tests run beside these.
    "--port=8500": "--port=0",
    "--server=localhost:8500": "--server={server}",
    "--model_name=cleanplate": "--model_name=cleanplate --port=0",
    "tensorboard --logdir": "tensorboard --port=0 --logdir",
    # One defence in the place of six, on smaller pictures.
    "serving.audit": "serving.audit --defences=moved --side=128 --attacks=blind,keyed",
    "--count=400": "--count=40",
}

_BRIEF = """
import pretrained
from configs import default

def get_config():
    config = default.get_config()
    config.init, config.model.features = str(pretrained.GENERIC), (48, 72, 96, 120)
    config.steps, config.batch_size, config.learning_rate = 2, 2, 1e-6
    config.data.crop, config.data.shuffle_crops, config.val_crops, config.val_crop = 64, 8, 2, 128
    return config
"""
_BRIEF_REFINE = """
from configs import refine

def get_config():
    config = refine.get_config()
    config.steps, config.batch_size, config.learning_rate = 2, 2, 1e-6
    config.data.crop, config.data.shuffle_crops, config.val_crops, config.val_crop = 64, 8, 2, 128
    return config
"""

_PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "camera", "retina")
_SIZE = (240, 320)
_MINUTE = 60


def _psnr(picture, clean, where=None):
    error = np.square(np.asarray(picture, float) - clean)
    return 10 * np.log10(255**2 / max((error if where is None else error[where]).mean(), 1e-2))


def _read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def _blend(clean, mark, corner, opacity=1.0):
    """A picture under a mark whose top left corner lies at (y, x), which may lie outside; and what the mark covers."""
    layer = Image.new("RGBA", clean.shape[1::-1])
    layer.paste(Image.fromarray(mark), corner[::-1])
    layer = np.asarray(layer).astype(float)
    alpha = layer[..., 3:] / 255 * opacity
    picture = np.rint(clean * (1 - alpha) + layer[..., :3] * alpha).astype(np.uint8)
    return picture, alpha[..., 0] > 0.02


class _Place:
    """A document's folder, what is known of the pictures in it, and the servers that its commands started."""

    def __init__(self, folder, clean):
        self.folder, self.clean = folder, clean
        self.servers, self.address, self.covered, self.frames = [], None, {}, None
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }

    def run(self, command):
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * _MINUTE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def start(self, command):
        """Starts a server, waits for the line in which it says where it is, and returns that address."""
        server = subprocess.Popen(
            ["bash", "-euc", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.servers.append(server)
        lines, said = queue.Queue(), []

        def pass_on():
            for line in server.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=pass_on, daemon=True).start()
        while True:
            line = lines.get(timeout=3 * _MINUTE)
            assert line is not None, f"{command}\n{''.join(said)}"
            said.append(line)
            found = re.search(r" at (?:http://)?([\w.-]+:\d+)", line)
            if found:
                return found[1]

    def stop(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(timeout=_MINUTE)
            server.stdout.close()


@pytest.fixture(scope="module")
def mark():
    """A field that no document's command writes, larger than the pictures."""
    return np.asarray(draw.tile(draw.text_stamp("Archive 1974", size=26, opacity=0.7), 500, gap=30, rotate=20))


@pytest.fixture(scope="module")
def clean(photos):
    """Crops of photographs by name, uint8."""
    height, width = _SIZE
    return {name: _read(photos / "images" / f"{name}.jpg")[20 : 20 + height, 40 : 40 + width] for name in _PICTURES}


def _write_coco(folder, clean):
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        images = [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": _SIZE[0], "width": _SIZE[1], "license": 1}
            for number in range(1, len(clean) + 1)
        ]
        for image, picture in zip(images, clean.values()):
            Image.fromarray(picture).save(folder / split / image["file_name"], quality=92)
        boxes = [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 60, 80], "area": 4800, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [30, 40, 90, 50], "area": 4500, "iscrowd": 0},
        ]
        captions = [{"id": 7, "image_id": 2, "caption": "A cat looks up."}]
        about = {"info": {}, "licenses": [{"id": 1, "name": "CC0"}], "images": images}
        instances = {**about, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps({**about, "annotations": captions}))


@pytest.fixture(scope="module")
def run_of_the_demo(dataset, tmp_path_factory, mark):
    """The workdir of a run such as `make demo` leaves."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "brief.py").write_text(_BRIEF)
    Image.fromarray(mark).save(folder / "mark.png")
    overrides = [f"--config.data.dir={dataset}", "--config.source=watermark:canvas=mark.png"]
    command = [sys.executable, "-m", "training.train", "--config=brief.py", "--workdir=train", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "train"


@pytest.fixture
def place(request, tmp_path, mark, clean, dataset):
    """A folder with all that documents assume, but for what they write themselves."""
    here, document = _Place(tmp_path, clean), request.getfixturevalue("document").name
    (tmp_path / "brief.py").write_text(_BRIEF)
    (tmp_path / "brief_refine.py").write_text(_BRIEF_REFINE)
    Image.fromarray(mark).save(tmp_path / "mark.png")
    (tmp_path / "photos").mkdir()
    for name, suffix, corner in (("astronaut", "png", (-90, -40)), ("coffee", "png", (-20, -150))):
        picture, here.covered[name] = _blend(clean[name], mark, corner, 0.95)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.{suffix}")
    shutil.copy(tmp_path / "photos" / "coffee.png", tmp_path / "photo.png")
    Image.open(tmp_path / "photo.png").save(tmp_path / "photo.jpg", quality=95, subsampling=0)
    if document in ("README.md", "scale.md"):
        _write_coco(tmp_path / "coco", clean)
    if document in ("serving.md", "training.md"):
        shutil.copytree(dataset, tmp_path / "tfrecords")
    if document in ("serving.md", "reuse.md"):
        shutil.copytree(request.getfixturevalue("run_of_the_demo"), tmp_path / "runs" / "demo" / "train")
    if document == "serving.md":
        here.frames = _write_video(tmp_path / "in.mp4", clean["china"], mark)
    if document == "watermark.md":
        (tmp_path / "mark.png").unlink()  # which its commands recover
        _write_flats_and_archive(tmp_path, clean)
    yield here
    here.stop()


def _write_video(path, picture, mark):
    """Six frames of a still picture over which a mark moves; returns them before they were marked."""
    frames = [_blend(picture, mark, (-50 - 3 * number, -60), 0.95)[0] for number in range(6)]
    height, width = _SIZE
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", "25", "-i", "-", "-c:v", "libx264", "-crf", "8", str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return np.stack([picture] * len(frames))


def _stamp():
    layer = Image.new("RGBA", (110, 46))
    ImageDraw.Draw(layer).text((4, 6), "Mine 24", (255, 255, 255, 150), ImageFont.load_default(26))
    return np.asarray(layer)


def _write_flats_and_archive(folder, clean):
    for name, level in (("dark", 0), ("bright", 255)):
        flat = np.full((150, 220, 3), level, np.uint8)
        Image.fromarray(_blend(flat, _stamp(), (60, 70))[0]).save(folder / f"{name}.png")
    (folder / "archive").mkdir()
    for name, picture in clean.items():
        for top, left in ((0, 0), (0, 150), (100, 0), (100, 150)):
            part = picture[top : top + 140, left : left + 170]
            Image.fromarray(_blend(part, _stamp(), (50, 20))[0]).save(folder / "archive" / f"{name}{top}{left}.png")


def _flag(words, name):
    [value] = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return value


def _converted(place, words, said):
    info = json.loads((place.folder / _flag(words, "output_dir") / "dataset_info.json").read_text())
    assert sum(split["images"] for split in info["splits"].values()) == len(_PICTURES) and set(info["splits"]) > {"val"}
    records = list((place.folder / _flag(words, "output_dir")).glob("*.tfrecord"))
    assert sum(1 for path in records for _ in tf.data.TFRecordDataset(str(path))) == len(_PICTURES)


def _verified(place, words, said):
    assert str(len(_PICTURES)) in said


def _trained(place, words, said):
    workdir = place.folder / _flag(words, "workdir")
    assert list((workdir / "best").glob("*.index")) and list((workdir / "tensorboard").rglob("events.*"))
    assert json.loads((workdir / "config.json").read_text())["steps"] == 2
    assert len((workdir / "metrics.csv").read_text().splitlines()) > 1


def _newest(place, words):
    return max((place.folder / _flag(words, "export_dir")).iterdir(), key=lambda version: int(version.name))


def _restored_better(place, version, least):
    restore = tf.saved_model.load(str(version)).signatures["restore"]
    for name, covered in place.covered.items():
        marked = _read(place.folder / "photos" / f"{name}.png")
        restored = restore(images=tf.constant(marked[None]))["restored"].numpy()[0]
        clean = place.clean[name]
        assert _psnr(restored, clean, covered) > _psnr(marked, clean, covered) + least, name


def _exported(place, words, said):
    version = _newest(place, words)
    assert str(version.relative_to(place.folder)) in said
    _restored_better(place, version, least=1.5)
    for flag, file in (("--tflite", "restore.tflite"), ("--onnx", "restore.onnx")):
        assert (version / file).exists() == (flag in words)


def _keyed(place, words, said):
    version = _newest(place, words)
    info = json.loads((version / "export_info.json").read_text())
    is_refined = any(word.startswith("--refine=") for word in words)
    assert (info["repair"]["step"] == 2) == is_refined
    _restored_better(place, version, least=15)


def _evaluated(place, words, said):
    folder = place.folder / _flag(words, "out")
    assert (folder / "index.html").stat().st_size > 10_000
    figures = json.loads((folder / "summary.json").read_text())["specs"][0]["figures"]
    assert figures["covered_psnr_out"]["mean"] > figures["covered_psnr_in"]["mean"]
    assert len((folder / "pictures.csv").read_text().splitlines()) == 1 + len(place.covered)


def _audited(place, words, said):
    folder = place.folder / _flag(words, "out")
    assert (folder / "index.html").stat().st_size > 10_000
    rows = (folder / "pictures.csv").read_text().splitlines()
    assert len(rows) > 2 * len(place.covered) and json.loads((folder / "summary.json").read_text())


def _pictures_came_back(place, words, said):
    for path in sorted((place.folder / "photos").iterdir()):
        marked, restored = _read(path), _read(place.folder / "restored" / path.name)
        clean, covered = place.clean[path.stem], place.covered[path.stem]
        assert restored.shape == marked.shape
        assert _psnr(restored, clean, covered) > _psnr(marked, clean, covered) + 1.5, path.name


def _video_came_back(place, words, said):
    def frames_of(name):
        frames = imageio_ffmpeg.read_frames(str(place.folder / name))
        width, height = next(frames)["size"]
        return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])

    given, restored = frames_of("in.mp4"), frames_of("out.mp4")
    assert restored.shape == given.shape == place.frames.shape
    assert _psnr(restored, place.frames) > _psnr(given, place.frames) + 1


def _answers(place, words, address):
    with urllib.request.urlopen(f"http://{address}/", timeout=_MINUTE) as page:
        assert page.status == 200 and b"<html" in page.read().lower()


def _listens(place, words, address):
    place.address = address
    with contextlib.closing(socket.create_connection(address.split(":"), timeout=_MINUTE)):
        pass


def _previewed(place, words, said):
    sheet = _read(place.folder / _flag(words, "out"))
    assert sheet.shape[0] > 400 and sheet.shape[1] > 900 and sheet.std() > 20


def _written_text(place, words, said):
    stamp = np.asarray(Image.open(place.folder / _flag(words, "out")))
    assert stamp.shape[2] == 4 and stamp.shape[0] > 96, "two lines of 48 pixels"
    assert 0 < stamp[..., 3].max() < 255


def _tiled(place, words, said):
    field = np.asarray(Image.open(place.folder / _flag(words, "out")))
    assert field.shape == (1000, 1000, 4)
    for part in (field[:250], field[-250:], field[:, :250], field[:, -250:]):
        assert 0.05 < (part[..., 3] > 0).mean() < 0.9


def _extracted(place, words, said):
    found = np.asarray(Image.open(place.folder / _flag(words, "out"))).astype(float)
    true = np.zeros((150, 220, 4))
    true[60:106, 70:180] = _stamp()
    assert np.abs(found - true)[..., 3].mean() < 1
    assert np.abs(found - true)[true[..., 3] > 26][:, :3].mean() < 2


def _estimated(place, words, said):
    found = Image.open(place.folder / _flag(words, "out"))
    true = _stamp()[..., 3] / 255
    # The estimate is cut to what it found of the mark: it lies somewhere within the stamp's own frame.
    top, left = np.argwhere(true > 0.02).min(axis=0)
    box = np.asarray(found)[..., 3] / 255
    inner = np.argwhere(box > 0.1).min(axis=0)
    frame = np.zeros((200, 300))
    y, x = 50 + top - inner[0], 50 + left - inner[1]
    frame[y : y + box.shape[0], x : x + box.shape[1]] = box
    covered = true > 0.02
    assert np.abs(frame[50 : 50 + true.shape[0], 50 : 50 + true.shape[1]] - true)[covered].mean() < 0.06
    confidence = place.folder / _flag(words, "out").replace(".png", ".confidence.png")
    assert Image.open(confidence).size == found.size


def _described(place, words, said):
    width, height = Image.open(place.folder / words[-1]).size
    assert str(width) in said and str(height) in said and "%" in said


def _drawn(place, words, said):
    stamps = sorted((place.folder / _flag(words, "out")).iterdir())
    assert len(stamps) == int(_flag(words, "count"))
    assert all(np.asarray(Image.open(path))[..., 3].any() for path in stamps)


def _flats_written(place, words, said):
    for level in (0, 255):
        flat = Image.open(place.folder / f"{level}.png")
        assert flat.size == (1200, 800) and flat.getextrema() == ((level, level),) * 3


def _array_written(place, words, said):
    np.testing.assert_array_equal(np.load(place.folder / "photo.npy")[0], _read(place.folder / "photo.jpg"))


def _shown(place, words, said):
    assert "inputs['images']" in said and "outputs['restored']" in said and "shape: (-1, -1, -1, 3)" in said


def _restored_array(place, words, said):
    restored = np.load(place.folder / "restored" / "restored.npy")[0]
    clean, covered = place.clean["coffee"], place.covered["coffee"]
    assert restored.dtype == np.uint8 and restored.shape == clean.shape
    assert _psnr(restored, clean, covered) > _psnr(_read(place.folder / "photo.jpg"), clean, covered) + 1.5


# What each command was to do, by what is in it; a server's check gets its address rather than what it said.
_CHECKS = {
    r"preprocessing\.coco_to_tfrecord": _converted,
    r"preprocessing\.verify": _verified,
    r"training\.train|training\.local_workers": _trained,
    r"serving\.export": _exported,
    r"serving\.key": _keyed,
    r"training\.evaluate": _evaluated,
    r"serving\.audit": _audited,
    r"serving\.client .*--video": _video_came_back,
    r"serving\.client": _pictures_came_back,
    r"training\.preview": _previewed,
    r"watermark text": _written_text,
    r"watermark tile": _tiled,
    r"watermark extract": _extracted,
    r"watermark estimate": _estimated,
    r"watermark info": _described,
    r"watermark bank": _drawn,
    r"Image\.new\('RGB', \(1200, 800\)": _flats_written,
    r"np\.save\('photo\.npy'": _array_written,
    r"saved_model_cli show": _shown,
    r"saved_model_cli run": _restored_array,
}
_SERVERS = {r"serving\.server": _listens, r"serving\.app": _answers, r"^tensorboard": _answers}


def _first(table, command):
    return next((value for pattern, value in table.items() if re.search(pattern, command, re.MULTILINE)), None)


def _substituted(command):
    for written, run in _SUBSTITUTED.items():
        command = command.replace(written, run)
    return command


@pytest.fixture(params=_DOCUMENTS, ids=lambda path: path.name)
def document(request):
    return request.param


@pytest.mark.timeout(1200)
def test_a_documents_commands_do_what_it_says(document, place):
    for command in shell_of(document):
        if _first(_NOT_RUN, command):
            continue
        command = _substituted(command).replace("{server}", str(place.address))
        started, check = _first(_SERVERS, command), _first(_CHECKS, command)
        assert started or check, f"no check knows what this was to do: {command}"
        words = words_of(command)
        if started:
            started(place, words, place.start(command))
        else:
            check(place, words, place.run(command))


def test_commands_that_are_not_run_have_flags_that_exist():
    left_out = [words_of(each) for path in _DOCUMENTS for each in shell_of(path) if _first(_NOT_RUN, each)]
    ours = [words for words in left_out if words[:2] == ["python", "-m"]]
    flags = flags_of({words[2] for words in ours})
    assert len(ours) > 10
    for words in ours:
        check_flags(words, flags)
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in left_out if words[0] == "make"} <= targets


def test_nothing_is_left_out_or_written_otherwise_in_vain():
    commands = [command for path in _DOCUMENTS for command in shell_of(path)]
    assert all(any(re.search(pattern, command, re.MULTILINE) for command in commands) for pattern in _NOT_RUN)
    run = [command for command in commands if not _first(_NOT_RUN, command)]
    assert len(run) > 30
    assert all(any(written in command for command in run) for written in _SUBSTITUTED)
    assert all(any(re.search(pattern, command) for command in run) for pattern in {**_CHECKS, **_SERVERS})


def test_no_shell_stands_outside_of_the_blocks_that_are_run():
    for path in _DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"^(?: {4}|\t)(?:python|make|pip|docker|cleanplate-|curl)", text, re.MULTILINE), path
        assert "```bash" not in path.read_text() and "```shell" not in path.read_text()

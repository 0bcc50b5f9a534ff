"""What the wheel installs works without the checkout: programs, recipes by name, and the models that come along.

The wheel goes into a folder of its own, which PYTHONPATH names: TensorFlow and the others come from the environment
of the tests, and of Cleanplate there is the wheel's copy alone.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("common", "configs", "examples", "preprocessing", "pretrained", "serving", "training")
# `make test` installs the checkout itself; without this, a module that the wheel lacks would be found there.
_NO_CHECKOUT = f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "_EditableFinder"]
sys.path[:] = [entry for entry in sys.path if entry != {str(_ROOT)!r}]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that the wheel is installed into."""
    source, wheels = tmp_path_factory.mktemp("source") / "cleanplate", tmp_path_factory.mktemp("wheels")
    # From a copy, since building leaves files behind, and takes up those that an earlier version left.
    unwanted = shutil.ignore_patterns(".git", ".venv", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(_ROOT, source, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", str(source)]
    subprocess.run(build, check=True)
    [wheel] = wheels.iterdir()
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([*pip, "install", "--quiet", "--no-deps", f"--target={folder}", str(wheel)], check=True)
    (folder / "sitecustomize.py").write_text(_NO_CHECKOUT)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder, far from the checkout, that everything is run in."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def environment(site):
    return {**os.environ, "PYTHONPATH": str(site), "PATH": os.pathsep.join([str(site / "bin"), os.environ["PATH"]])}


@pytest.fixture(scope="module")
def run(place, environment):
    def run(*command, check=True):
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=place, env=environment)
        assert not check or done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done

    return run


@pytest.fixture(scope="module")
def mark(place, run):
    """A tiled canvas that was drawn by the wheel's own command, uint8 RGBA."""
    run("cleanplate-watermark", "text", "Wheel 2024", "--size=30", "--outline=0", "--opacity=0.7", "--out=stamp.png")
    run("cleanplate-watermark", "tile", "stamp.png", "--size=700", "--rotate=20", "--out=mark.png")
    return np.asarray(Image.open(place / "mark.png").convert("RGBA"))


@pytest.fixture(scope="module")
def tfrecords(place, run, photos):
    (place / "coco").mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        shutil.copy(photos / "images" / f"{name}.jpg", place / "coco")
    run("cleanplate-coco-to-tfrecord", "--images_dir=coco", "--output_dir=tfrecords", "--splits=train=3,val=1")
    return place / "tfrecords"


def _psnr(picture, clean, covered):
    return 10 * np.log10(255**2 / np.square(picture.astype(float) - clean)[covered].mean())


def test_every_module_is_the_wheels(site, run):
    script = f"""
import importlib, importlib.util, json, pkgutil
names = []
for package in {_PACKAGES}:
    names += [module.name for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")]
print(json.dumps({{name: importlib.util.find_spec(name).origin for name in names}}))
assert importlib.util.find_spec("benchmarks") is None, "the checkout can be imported"
"""
    files = json.loads(run(sys.executable, "-c", script).stdout)
    assert len(files) > 100 and all(Path(file).is_relative_to(site) for file in files.values())


def test_the_wheel_has_every_file_of_the_packages(site):
    listed = {
        path.relative_to(_ROOT)
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(listed) > 150 and not [path for path in sorted(listed) if not (site / path).is_file()]


def test_a_keyed_export_and_its_server_restore_a_photograph(place, run, environment, mark, astronaut):
    run("cleanplate-key", "--canvas=mark.png", "--export_dir=export", "--scale=1", "--rotate=0")
    info = json.loads((place / "export" / "1" / "export_info.json").read_text())
    assert info["repair"]["config"]["model"]["name"] == "repair"

    alpha = mark[60:572, 40:552, 3:] / 255 * 0.95
    marked = np.rint(astronaut * (1 - alpha) + mark[60:572, 40:552, :3] * alpha).astype(np.uint8)
    covered = alpha[..., 0] > 0.02
    (place / "photos").mkdir()
    Image.fromarray(marked).save(place / "photos" / "astronaut.png")
    serve = ["cleanplate-server", "--model_base_path=export", "--port=0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, cwd=place, env=environment) as server:
        try:
            address = server.stdout.readline().split(" at ")[1].split()[0]
            run("cleanplate-client", f"--server={address}", "photos", "restored")
        finally:
            server.terminate()
    restored = np.asarray(Image.open(place / "restored" / "astronaut.png"))
    assert restored.shape == marked.shape and 0.1 < covered.mean() < 0.9
    assert _psnr(restored, astronaut, covered) > _psnr(marked, astronaut, covered) + 15
    np.testing.assert_array_equal(restored[alpha[..., 0] == 0], marked[alpha[..., 0] == 0])


def test_the_audit_lists_its_flags(run):
    done = run("cleanplate-audit", "--help", check=False)
    assert "--attacks" in done.stdout and "Traceback" not in done.stderr


def test_a_recipe_is_trained_by_its_name(place, run, mark, tfrecords):
    fields = {
        "data.dir": "tfrecords",
        "source": "watermark:canvas=mark.png",
        "data.shuffle_crops": 8,
        "model.features": "(6,)",
        "model.blocks": "(1,)",
        "batch_size": 2,
        "steps": 2,
        "val_crops": 1,
        "val_crop": 64,
    }
    run("cleanplate-train", "--config=srresnet", "--workdir=run", *(f"--config.{k}={v}" for k, v in fields.items()))
    config = json.loads((place / "run" / "config.json").read_text())
    assert config["model"]["name"] == "srresnet" and config["steps"] == 2
    done = run("cleanplate-train", "--config=configs/default.py", "--workdir=other", check=False)
    assert done.returncode == 1 and "no such file; the recipes that come with Cleanplate are default" in done.stderr


def test_the_demo_runs(place, run):
    done = run("cleanplate-demo", "--out=demo", "--minutes=0.02", check=False)
    # With so little training it may say that the network did not learn enough; nothing else may go wrong.
    assert done.returncode == 0 or done.stderr.strip().splitlines()[-1].startswith("error: the demo"), done.stderr
    summary = json.loads((place / "demo" / "summary.json").read_text())
    # Neither way needs the training, and both need what the wheel ships.
    assert summary["pretrained_covered_psnr_out"] > summary["covered_psnr_in"] + 3
    assert summary["known_covered_psnr_out"] > summary["covered_psnr_in"] + 20
    assert (place / "demo" / "export" / "1" / "saved_model.pb").is_file()
    assert Image.open(place / "demo" / "before_after.png").width > 700

"""Fixtures shared by all folders: real photographs, and a dataset made of them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training.distributed.devices

# `make test` runs two processes at a time; on a GPU the first would take all of its memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# Two logical CPU devices, so that distribution is tested in the same process; before TensorFlow starts.
training.distributed.devices.split_cpu(2)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A COCO folder of the photographs that scikit-image and scikit-learn ship."""
    from preprocessing import sample_photos

    folder = tmp_path_factory.mktemp("photos") / "coco"
    sample_photos.write_coco_folder(str(folder))
    return folder


@pytest.fixture(scope="session")
def dataset(photos, tmp_path_factory):
    """TFRecords of the photographs: splits train and val."""
    from preprocessing.conversion.convert import convert

    folder = tmp_path_factory.mktemp("dataset")
    annotations = str(photos / "annotations" / "instances.json")
    convert(str(photos / "images"), str(folder), "train=11,val=3", annotations=annotations, shard_mb=0.4)
    return folder


@pytest.fixture(scope="session")
def canvas_path(tmp_path_factory):
    """A tiled text canvas, 300 x 300."""
    from preprocessing.marks import draw

    path = tmp_path_factory.mktemp("canvas") / "mark.png"
    draw.save_whole(draw.tile(draw.text_stamp("Sample", size=20), size=300, gap=12, rotate=20), str(path))
    return path


@pytest.fixture(scope="session")
def astronaut(photos):
    """A photograph, uint8 [512, 512, 3]."""
    return np.asarray(Image.open(photos / "images" / "astronaut.jpg"))


@pytest.fixture(scope="session")
def crops(photos):
    """Centre crops of photographs, uint8 [N, 256, 256, 3]."""
    found = []
    for path in sorted((photos / "images").iterdir()):
        picture = np.asarray(Image.open(path).convert("RGB"))
        top, left = ((size - 256) // 2 for size in picture.shape[:2])
        if min(top, left) >= 0:
            found.append(picture[top : top + 256, left : left + 256])
    return np.stack(found)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium; apt-get install chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()

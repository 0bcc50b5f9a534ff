"""Real photographs, from the packages that ship them, laid out as COCO lays its own out."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from preprocessing.conversion.convert import convert


def _photographs():
    whole = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    for picture in whole:
        height, width, _ = picture.shape
        yield picture
        yield picture[: height // 2, : width // 2 + 3]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Paths of twelve different JPEGs of several sizes, one of them grey."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, picture in enumerate(_photographs()):
        image = Image.fromarray(picture)
        if index == 3:
            image = image.convert("L")
        image.save(folder / f"{index:012d}.jpg", quality=90)
    return sorted(folder.iterdir())


@pytest.fixture
def coco_folder(tmp_path, photographs):
    """A COCO folder: `images`, `instances` and `captions` are paths, `json` and `captions_json` their content."""
    images = tmp_path / "coco" / "train"
    images.mkdir(parents=True)
    for path in photographs:
        (images / path.name).write_bytes(path.read_bytes())
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "animal", "id": 17, "name": "cat"},
        {"supercategory": "kitchen", "id": 47, "name": "cup"},
    ]
    entries, annotations, captions = [], [], []
    for index, path in enumerate(photographs):
        identifier = 1000 + 7 * index
        with Image.open(path) as image:
            width, height = image.size
        entries.append(
            {"license": 3, "file_name": path.name, "height": height, "width": width, "id": identifier}
            | {"coco_url": f"http://images.cocodataset.org/train2017/{path.name}"}
        )
        for number in range(index % 4):  # some pictures hold nothing
            box = [1.25 + 10 * number, 2.5, width / 3, height / 4 + number]
            annotations.append(
                {
                    "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]],
                    "area": box[2] * box[3] / 2,
                    "iscrowd": number % 2,
                    "image_id": identifier,
                    "bbox": box,
                    "category_id": categories[number]["id"],
                    "id": 100 * index + number,
                }
            )
        for number in range(2 if index % 3 else 0):
            captions.append({"image_id": identifier, "id": 10 * index + number, "caption": f"Größe {index}, {number}."})
    common = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "CC BY"}], "images": entries}
    # COCO's own files are not grouped by picture either.
    instances = {**common, "annotations": annotations[::-1], "categories": categories}
    captions_json = {**common, "annotations": captions}
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "coco" / "captions.json").write_text(json.dumps(captions_json))
    return SimpleNamespace(
        images=images,
        instances=tmp_path / "coco" / "instances.json",
        captions=tmp_path / "coco" / "captions.json",
        json=instances,
        captions_json=captions_json,
        output=tmp_path / "tfrecords",
    )


@pytest.fixture
def run_convert(coco_folder):
    """Converts `coco_folder`, by default with both JSON files; keyword arguments go to `convert`."""

    def run(output=None, **changes):
        arguments = {
            "images_dir": str(coco_folder.images),
            "output_dir": str(output or coco_folder.output),
            "annotations": str(coco_folder.instances),
            "captions": str(coco_folder.captions),
            "split_sizes": "train=8,test=4",
            "shard_mb": 0.1,
        }
        return convert(**{**arguments, **changes})

    return run


@pytest.fixture
def shard_bytes():
    """A function: folder -> shard name -> bytes."""

    def read(folder):
        return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.tfrecord"))}

    return read


@pytest.fixture(autouse=True)
def _informative(caplog):
    caplog.set_level(logging.INFO)

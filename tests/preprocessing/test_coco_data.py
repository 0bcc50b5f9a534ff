"""The official COCO pictures and annotations, where this machine has a copy."""

import json
from pathlib import Path

import pytest

from preprocessing.conversion.convert import convert
from preprocessing.dataset import schema, tfrecord
from preprocessing.dataset.integrity import verify

_COCO = Path(__file__).parents[2] / "../shared/data/coco"


@pytest.mark.skipif(not _COCO.is_dir(), reason="no COCO photographs in ../shared/data/coco")
def test_coco_val2017_is_converted_whole(tmp_path):
    instances = _COCO / "annotations" / "instances_val2017.json"
    info = convert(
        str(_COCO / "val2017"),
        str(tmp_path),
        "val=1.0",
        annotations=str(instances),
        captions=str(_COCO / "annotations" / "captions_val2017.json"),
        shard_mb=8,
    )
    content = json.loads(instances.read_text())
    assert info["rejected"]["images"] == 0
    assert info["splits"]["val"]["images"] == len(content["images"])
    verify(str(tmp_path))
    objects = 0
    for path in schema.shard_paths(str(tmp_path), "val"):
        with open(path, "rb") as file:
            objects += sum(
                len(schema.parse_example(data)["image/object/class/label"]) for data in tfrecord.Reader(file)
            )
    assert objects + info["boxes_without_area"] == len(content["annotations"])

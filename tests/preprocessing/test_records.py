"""What is in the records, seen through TensorFlow's own reader and parser."""

import hashlib
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from preprocessing.dataset import schema, tfrecord


@pytest.fixture
def examples(coco_folder, run_convert):
    """File name -> tf.train.Example, of both splits."""
    run_convert()
    found = {}
    for path in sorted(coco_folder.output.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            found[example.features.feature["image/filename"].bytes_list.value[0].decode()] = example
    return found


def _values(example, key):
    feature = example.features.feature[key]
    return list(getattr(feature, feature.WhichOneof("kind")).value)


def test_every_picture_is_in_one_record_with_its_bytes_unchanged(coco_folder, examples):
    assert sorted(examples) == sorted(path.name for path in coco_folder.images.iterdir())
    for name, example in examples.items():
        data = (coco_folder.images / name).read_bytes()
        assert _values(example, "image/encoded") == [data]
        assert _values(example, "image/key/sha256") == [hashlib.sha256(data).hexdigest().encode()]
        assert _values(example, "image/format") == [b"jpeg"]


def test_sizes_and_ids_are_those_of_the_json(coco_folder, examples):
    for entry in coco_folder.json["images"]:
        example = examples[entry["file_name"]]
        assert _values(example, "image/width") == [entry["width"]]
        assert _values(example, "image/height") == [entry["height"]]
        assert _values(example, "image/source_id") == [str(entry["id"]).encode()]


def test_objects_are_those_of_the_json_in_its_order(coco_folder, examples):
    names = {category["id"]: category["name"].encode() for category in coco_folder.json["categories"]}
    objects = 0
    for entry in coco_folder.json["images"]:
        mine = [a for a in coco_folder.json["annotations"] if a["image_id"] == entry["id"]]
        objects += len(mine)
        example = examples[entry["file_name"]]
        boxes = np.array([a["bbox"] for a in mine]).reshape(-1, 4)
        size = np.array([entry["width"], entry["height"]])
        corners = np.concatenate([boxes[:, :2] / size, (boxes[:, :2] + boxes[:, 2:]) / size], axis=1)
        for column, key in enumerate(("xmin", "ymin", "xmax", "ymax")):
            np.testing.assert_allclose(_values(example, f"image/object/bbox/{key}"), corners[:, column], rtol=1e-6)
        assert _values(example, "image/object/class/label") == [a["category_id"] for a in mine]
        assert _values(example, "image/object/class/text") == [names[a["category_id"]] for a in mine]
        assert _values(example, "image/object/is_crowd") == [a["iscrowd"] for a in mine]
        np.testing.assert_allclose(_values(example, "image/object/area"), [a["area"] for a in mine], rtol=1e-6)
    assert objects == len(coco_folder.json["annotations"]) > 12


def test_captions_are_those_of_the_json(coco_folder, examples):
    for entry in coco_folder.captions_json["images"]:
        mine = [a["caption"] for a in coco_folder.captions_json["annotations"] if a["image_id"] == entry["id"]]
        assert [text.decode() for text in _values(examples[entry["file_name"]], "image/caption")] == mine


def test_tensorflow_parses_and_decodes_a_record_with_the_documented_types(coco_folder, run_convert):
    run_convert()
    kinds = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
    spec = {
        key: tf.io.VarLenFeature(kinds[feature.kind])
        if feature.repeated
        else tf.io.FixedLenFeature([], kinds[feature.kind])
        for key, feature in schema.FEATURES.items()
    }
    for record in tf.data.TFRecordDataset(schema.shard_paths(str(coco_folder.output), "train")):
        parsed = tf.io.parse_single_example(record, spec)
        decoded = tf.io.decode_image(parsed["image/encoded"], channels=3, expand_animations=False)
        assert decoded.shape == (parsed["image/height"], parsed["image/width"], 3)


def test_boxes_over_the_edge_are_clipped_and_flat_ones_left_out_and_counted(coco_folder, run_convert):
    first = coco_folder.json["images"][0]
    box = {"image_id": first["id"], "category_id": 17, "area": 5.0, "iscrowd": 0}
    coco_folder.json["annotations"] += [
        {**box, "id": 9001, "bbox": [-3.0, 0.0, first["width"] + 9.0, 10.0]},
        {**box, "id": 9002, "bbox": [5.0, 5.0, 0.0, 10.0]},
    ]
    coco_folder.instances.write_text(json.dumps(coco_folder.json))
    info = run_convert()
    assert info["boxes_without_area"] == 1
    for path in coco_folder.output.glob("*.tfrecord"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            if _values(example, "image/filename") == [first["file_name"].encode()]:
                assert _values(example, "image/object/bbox/xmin") == [0.0]
                assert _values(example, "image/object/bbox/xmax") == [1.0]
                return
    pytest.fail("the picture is in no shard")


def test_exif_orientation_changes_neither_bytes_nor_size(coco_folder, run_convert):
    path = coco_folder.images / "000000000000.jpg"
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        width, height = image.size[0], image.size[1] - 40
        image.crop((0, 0, width, height)).save(path, exif=exif)
    run_convert(annotations=None, captions=None, split_sizes="train=1.0")
    for shard in schema.shard_paths(str(coco_folder.output), "train"):
        for record in tf.data.TFRecordDataset(shard).as_numpy_iterator():
            values = schema.parse_example(record)
            if values["image/filename"] == [path.name.encode()]:
                assert (values["image/width"], values["image/height"]) == ([width], [height])
                assert values["image/encoded"] == [path.read_bytes()]
                return
    pytest.fail("the picture is in no shard")


def _all_kinds_of_values():
    return {
        "image/encoded": [bytes(range(256)) * 300],
        "image/height": [480],
        "image/object/area": [0.5, 1e9],
        "image/object/class/label": [1, 90, -3],
        "image/object/class/text": ["Größe".encode(), b""],
        "image/caption": [],
    }


@pytest.mark.parametrize("picture", [b"", b"x", b"x" * 127, b"x" * 128, b"x" * 70_000, b"x" * 3_000_000])
def test_a_record_of_any_length_is_what_protobuf_would_write(picture):
    values = {**_all_kinds_of_values(), "image/encoded": [picture]}
    example = tf.train.Example.FromString(schema.serialise_example(values))
    assert set(example.features.feature) == set(values)
    assert example.features.feature["image/encoded"].bytes_list.value == [picture]
    assert example.features.feature["image/object/class/label"].int64_list.value == [1, 90, -3]
    assert example.features.feature["image/caption"].WhichOneof("kind") == "bytes_list"
    assert len(schema.serialise_example(values)) == example.ByteSize()


def test_the_order_in_which_features_are_given_does_not_change_the_bytes():
    values = _all_kinds_of_values()
    backwards = dict(reversed(values.items()))
    assert schema.serialise_example(values) == schema.serialise_example(backwards)


def test_our_parser_reads_what_tensorflow_wrote():
    feature = {"image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[7, 8]))}
    feature["image/area"] = tf.train.Feature(float_list=tf.train.FloatList(value=[0.25]))
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    assert schema.parse_example(example.SerializeToString()) == {"image/height": [7, 8], "image/area": [0.25]}
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        schema.parse_example(b"\xff\xff\xff")


_RECORDS = [b"", b"one", b"\x00" * 5000, "Größe".encode()]


def test_the_writer_writes_the_same_file_as_tensorflow(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in _RECORDS:
            theirs.write(record)
    ours = io.BytesIO()
    writer = tfrecord.Writer(ours)
    for record in _RECORDS:
        writer.write(record[:2], record[2:])
    assert ours.getvalue() == (tmp_path / "theirs").read_bytes()
    assert (writer.records, writer.bytes) == (4, len(ours.getvalue()))


def test_the_reader_reads_what_tensorflow_wrote(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in _RECORDS:
            theirs.write(record)
    with open(tmp_path / "theirs", "rb") as file:
        assert list(tfrecord.Reader(file)) == _RECORDS


@pytest.mark.parametrize(
    ("damage", "index", "fault"),
    [
        (lambda data: data[:16] + b"!" + data[17:], 1, "length CRC does not match"),
        (lambda data: data[:-6] + b"!" + data[-5:], 3, "data CRC does not match"),
        (lambda data: data[:-1], 3, "truncated: the file ends within its data"),
        (lambda data: data[:20], 1, "truncated: the file ends within its header"),
    ],
)
def test_the_reader_names_the_bad_record_and_what_is_wrong(damage, index, fault):
    file = io.BytesIO()
    writer = tfrecord.Writer(file)
    for record in _RECORDS:
        writer.write(record)
    with pytest.raises(tfrecord.BadRecord) as raised:
        list(tfrecord.Reader(io.BytesIO(damage(file.getvalue()))))
    assert (raised.value.index, raised.value.fault) == (index, fault)

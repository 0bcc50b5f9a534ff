"""The format of a dataset folder: file names, the features of a record, and `dataset_info.json`.

    DATASET/
      dataset_info.json                 written last: a folder without it holds an unfinished job
      rejected.jsonl                    one line per rejected image, with the reason
      train-00000-of-00002.tfrecord     one tf.train.Example per image, features as in FEATURES
      train-00001-of-00002.tfrecord
      val-00000-of-00001.tfrecord

All readers of a dataset start here. `training` imports nothing else from this package:

    info = schema.read_dataset_info("/data/coco")
    paths = schema.shard_paths("/data/coco", "train")
    spec = {key: tf.io.FixedLenFeature([], tf.string) for key in (schema.ENCODED, schema.FORMAT)}

This module needs neither TensorFlow nor Beam. Importing TensorFlow would cost 300 MB and two seconds in every Beam
worker, just for the four messages of `tf.train.Example`, so they are declared below, field by field.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from common.command_line import UserError

SCHEMA_VERSION = 1

DATASET_INFO = "dataset_info.json"
REJECTED = "rejected.jsonl"

# The keys that TF Model Garden's decoders expect.
ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
SOURCE_ID = "image/source_id"
SHA256 = "image/key/sha256"
XMIN = "image/object/bbox/xmin"
XMAX = "image/object/bbox/xmax"
YMIN = "image/object/bbox/ymin"
YMAX = "image/object/bbox/ymax"
LABEL = "image/object/class/label"
TEXT = "image/object/class/text"
IS_CROWD = "image/object/is_crowd"
AREA = "image/object/area"
CAPTION = "image/caption"


class Feature(NamedTuple):
    """The values of a key: of `kind` bytes, int64 or float; exactly one or, if `repeated`, any number."""

    kind: str
    repeated: bool
    meaning: str


FEATURES: dict[str, Feature] = {
    ENCODED: Feature("bytes", False, "the original file's bytes, never re-encoded"),
    FORMAT: Feature("bytes", False, "jpeg, png, bmp or gif"),
    HEIGHT: Feature("int64", False, "pixels, of the stored raster: EXIF orientation is not applied"),
    WIDTH: Feature("int64", False, "pixels, of the stored raster"),
    FILENAME: Feature("bytes", False, "path below --images_dir, with /"),
    SOURCE_ID: Feature("bytes", False, "COCO's image id; the file name where there is no annotation"),
    SHA256: Feature("bytes", False, "of image/encoded, 64 hexadecimal digits"),
    XMIN: Feature("float", True, "0..1 of the width"),
    XMAX: Feature("float", True, "0..1 of the width"),
    YMIN: Feature("float", True, "0..1 of the height"),
    YMAX: Feature("float", True, "0..1 of the height"),
    LABEL: Feature("int64", True, "COCO's category id"),
    TEXT: Feature("bytes", True, "the category's name"),
    IS_CROWD: Feature("int64", True, "1 where the box surrounds a group"),
    AREA: Feature("float", True, "square pixels of the object's mask"),
    CAPTION: Feature("bytes", True, "one sentence each"),
}

_SHARD = re.compile(r"(?P<split>\w+)-(?P<index>\d{5,})-of-(?P<count>\d{5,})\.tfrecord")


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of a shard, such as `train-00007-of-00032.tfrecord`."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def is_shard_name(name: str) -> bool:
    """Returns whether a file name has the form of `shard_name`."""
    return _SHARD.fullmatch(name) is not None


def dataset_path(directory: str, name: str) -> str:
    """Returns the path of the file `name` in a dataset folder, which may be a URL (s3://…)."""
    return f"{directory.rstrip('/')}/{name}" if "://" in directory else os.path.join(directory, name)


def read_dataset_info(directory: str) -> dict[str, Any]:
    """Reads a dataset's `dataset_info.json`.

    Args:
      directory: a folder or URL that `preprocessing.coco_to_tfrecord` wrote.

    Returns:
      The content of `dataset_info.json`.

    Raises:
      UserError: the folder is missing, its job did not finish, or its schema version is not supported.
    """
    path = dataset_path(directory, DATASET_INFO)
    again = "run python -m preprocessing.coco_to_tfrecord --output_dir=" + directory
    try:
        info = json.loads(_read_text(path))
    except (FileNotFoundError, NotADirectoryError):
        if "://" not in directory and not os.path.isdir(directory):
            raise UserError(f"dataset {directory}: no such folder; {again}") from None
        raise UserError(f"dataset {directory}: no {DATASET_INFO}, so its job did not finish; {again}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise UserError(f"{path}: not JSON; {again} --overwrite") from None
    version = info.get("schema_version") if isinstance(info, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this program reads version {SCHEMA_VERSION}; {again} --overwrite"
        )
    return info


def shard_paths(directory: str, split: str) -> list[str]:
    """Returns the paths of a split's shards, in order.

    Raises:
      UserError: as in `read_dataset_info`, or the split does not exist.
    """
    splits = read_dataset_info(directory)["splits"]
    if split not in splits:
        raise UserError(f"dataset {directory}: no split {split!r}; there is {', '.join(splits)}")
    return [dataset_path(directory, shard["file"]) for shard in splits[split]["shards"]]


def example_pieces(values: Mapping[str, Sequence[Union[bytes, int, float]]]) -> tuple[bytes, bytes, bytes]:
    """Builds a record around an image without copying the image's bytes.

    The message is what protobuf would write, except that the entry of ENCODED comes first and is framed by hand:
    protobuf copies the image three times, which took longer than the rest of its conversion.

    Args:
      values: keys of FEATURES, including ENCODED -> list of values. Empty lists are written too, so that readers can
        tell "no objects" from "not one of our datasets".

    Returns:
      Pieces to write one after the other: a serialized `tf.train.Example`, the same bytes for the same values.
    """
    features = _Features()
    for key, items in values.items():
        if key != ENCODED:
            value_list = getattr(features.feature[key], f"{FEATURES[key].kind}_list")
            value_list.SetInParent()
            value_list.value.extend(items)
    # Map entries have no defined order, so without this, equal records could have different bytes.
    others = features.SerializeToString(deterministic=True)

    (picture,) = values[ENCODED]
    head = b""
    # From the inside out: BytesList.value, Feature.bytes_list, FeatureEntry.value and .key, Features.feature.
    for field_number in (1, 1, 2):
        head = _field_header(field_number, len(head) + len(picture)) + head
    key = ENCODED.encode()
    head = _field_header(1, len(key)) + key + head
    head = _field_header(1, len(head) + len(picture)) + head
    return _field_header(1, len(head) + len(picture) + len(others)) + head, picture, others


def serialise_example(values: Mapping[str, Sequence[Union[bytes, int, float]]]) -> bytes:
    """Builds the same record as `example_pieces`, in one piece."""
    return b"".join(example_pieces(values))


def parse_example(serialised: bytes) -> dict[str, list[Union[bytes, int, float]]]:
    """Parses a record.

    Returns:
      Key -> list of values.

    Raises:
      ValueError: the bytes are not a `tf.train.Example`.
    """
    example = _Example()
    try:
        example.ParseFromString(serialised)
    except Exception as error:  # DecodeError, whose class depends on protobuf's backend
        raise ValueError("not a tf.train.Example") from error
    found = {}
    for key, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[key] = list(getattr(feature, kind).value) if kind else []
    return found


def _read_text(path: str) -> str:
    if "://" not in path:
        with open(path, encoding="utf-8") as file:
            return file.read()
    from common.storage import filesystem  # only for a URL: importing Beam takes a second

    filesystem.check(path, listed=False)
    return filesystem.read_bytes(path).decode("utf-8")


def _field_header(number: int, length: int) -> bytes:
    """Returns the header of a length-delimited field on the wire: its tag, then its length as a varint."""
    header = bytearray([number << 3 | 2])
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header)


def _declare_messages() -> tuple[type, type]:
    """Declares `tensorflow.Example` and `Features` as in tensorflow/core/example/{example,feature}.proto.

    They get their own descriptor pool, because the default pool refuses a second definition if TensorFlow is imported
    too.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cleanplate/example.proto", package="tensorflow", syntax="proto3")

    kinds = {"bytes": field.TYPE_BYTES, "float": field.TYPE_FLOAT, "int64": field.TYPE_INT64}
    for kind, value_type in kinds.items():
        file.message_type.add(name=f"{kind.capitalize()}List").field.add(
            name="value", number=1, label=field.LABEL_REPEATED, type=value_type
        )

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(kinds, start=1):
        feature.field.add(
            name=f"{kind}_list",
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".tensorflow.{kind.capitalize()}List",
            oneof_index=0,
        )

    features = file.message_type.add(name="Features")
    features.field.add(
        name="feature",
        number=1,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=".tensorflow.Features.FeatureEntry",
    )
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=".tensorflow.Feature",
    )

    file.message_type.add(name="Example").field.add(
        name="features",
        number=1,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=".tensorflow.Features",
    )

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("tensorflow.Example", "tensorflow.Features")
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)


_Example, _Features = _declare_messages()

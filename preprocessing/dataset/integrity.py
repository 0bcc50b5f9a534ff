"""Reads a dataset back and compares it with its dataset_info.json: the library behind `preprocessing.verify`."""

import hashlib
import logging
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from tqdm import tqdm

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.dataset import schema, tfrecord

_LOG = logging.getLogger(__name__)


def verify(directory: str) -> dict[str, Any]:
    """Checks every record of every shard (framing, checksums, features, the image's SHA-256) and all counts.

    Args:
      directory: a folder or URL that `preprocessing.coco_to_tfrecord` wrote.

    Returns:
      The content of its dataset_info.json.

    Raises:
      UserError: the dataset is damaged; the message names the first fault.
    """
    directory = filesystem.absolute(directory)
    info = schema.read_dataset_info(directory)
    remedy = f"run preprocessing.coco_to_tfrecord again with --output_dir={directory} --overwrite"
    shards = [shard for split in info["splits"].values() for shard in split["shards"]]
    try:
        _check_files({shard["file"] for shard in shards}, directory)
        _check_counts(info)
        total = sum(shard["bytes"] for shard in shards)
        with tqdm(total=total, desc="verify", unit="B", unit_scale=True, delay=1) as bar:
            for shard in shards:
                _check_shard(shard, directory, bar)
    except _Fault as fault:
        raise UserError(f"{fault}; {remedy}") from None
    images = sum(split["images"] for split in info["splits"].values())
    _LOG.info("%s: %d images in %d shards, %.0f MB: all good", directory, images, len(shards), total / 1e6)
    return info


class _Fault(Exception):
    """Raised for a fault; the message lacks the remedy, which `verify` adds."""


def _check_files(described: set, directory: str) -> None:
    present = {
        file.name for file in filesystem.list_files(directory, recursive=False) if schema.is_shard_name(file.name)
    }
    for name in sorted(described - present):
        raise _Fault(f"shard {name}: missing from {directory}")
    for name in sorted(present - described):
        raise _Fault(f"shard {name}: {schema.DATASET_INFO} does not know it")


def _check_counts(info: dict[str, Any]) -> None:
    for name, split in info["splits"].items():
        for what in ("images", "bytes"):
            total = sum(shard[what] for shard in split["shards"])
            if split[what] != total:
                raise _Fault(f"split {name}: {schema.DATASET_INFO} gives it {split[what]} {what}, its shards {total}")


def _check_shard(shard: dict[str, Any], directory: str, bar: tqdm) -> None:
    name = shard["file"]
    records = read = 0
    try:
        with filesystem.open_for_reading(schema.dataset_path(directory, name)) as file:
            reader = tfrecord.Reader(file)
            for data in reader:
                fault = _record_fault(data)
                if fault:
                    raise _Fault(f"shard {name}: record {records}{_label(data)}: {fault}")
                records += 1
                bar.update(reader.bytes - read)
                read = reader.bytes
    except tfrecord.BadRecord as error:
        raise _Fault(f"shard {name}: record {error.index}{_label(error.data)}: {error.fault}") from None
    except (OSError, BeamIOError) as error:
        raise _Fault(f"shard {name}: cannot be read: {error}") from None
    if records != shard["images"]:
        raise _Fault(f"shard {name}: holds {records} records, {schema.DATASET_INFO} says {shard['images']}")
    if reader.crc32c != shard["crc32c"]:
        raise _Fault(f"shard {name}: its records are whole, but not those that were written: CRC-32C {reader.crc32c}")


def _record_fault(data: bytes) -> str:
    """Returns what is wrong with a record whose checksums match; empty if nothing is."""
    try:
        values = schema.parse_example(data)
    except ValueError as error:
        return str(error)
    for key, feature in schema.FEATURES.items():
        if key not in values:
            return f"no feature {key}"
        if not feature.repeated and len(values[key]) != 1:
            return f"{len(values[key])} values of {key}"
    if hashlib.sha256(values[schema.ENCODED][0]).hexdigest().encode() != values[schema.SHA256][0]:
        return f"{schema.SHA256} does not match the picture"
    return ""


def _label(data: bytes) -> str:
    """Returns the image's name in parentheses if it can still be read, else an empty string."""
    try:
        return f" ({schema.parse_example(data)[schema.FILENAME][0].decode('utf-8', 'replace')})"
    except (ValueError, KeyError, IndexError):
        return ""

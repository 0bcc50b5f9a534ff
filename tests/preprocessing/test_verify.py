"""Damage to a finished dataset, and what `verify` calls it."""

import json

import pytest

from common.command_line import UserError
from preprocessing.dataset import schema, tfrecord
from preprocessing.dataset.integrity import verify

_SHARD = "train-00000-of-00002.tfrecord"


@pytest.fixture
def dataset(coco_folder, run_convert):
    total = sum(path.stat().st_size for path in coco_folder.images.iterdir())
    run_convert(split_sizes="train=1.0", shard_mb=total / 2 / 1e6)
    assert verify(str(coco_folder.output))["splits"]["train"]["images"] == 12
    return coco_folder.output


def _records(path):
    with open(path, "rb") as file:
        return list(tfrecord.Reader(file))


def _name(record):
    return schema.parse_example(record)["image/filename"][0].decode()


def _rewrite(path, records):
    with open(path, "wb") as file:
        writer = tfrecord.Writer(file)
        for record in records:
            writer.write(record)


def _fault(dataset):
    with pytest.raises(UserError) as raised:
        verify(str(dataset))
    assert "run preprocessing.coco_to_tfrecord again" in str(raised.value)
    assert "--overwrite" in str(raised.value)
    return str(raised.value)


def _flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_in_a_picture_names_record_and_picture(dataset):
    records = _records(dataset / _SHARD)
    start = sum(len(record) + 16 for record in records[:3])
    _flip(dataset / _SHARD, start + 12 + len(records[3]) // 2)
    assert f"shard {_SHARD}: record 3 ({_name(records[3])}): data CRC does not match" in _fault(dataset)


def test_a_flipped_byte_in_a_length_names_the_record(dataset):
    first = len(_records(dataset / _SHARD)[0]) + 16
    _flip(dataset / _SHARD, first + 1)
    assert f"shard {_SHARD}: record 1: length CRC does not match" in _fault(dataset)


def test_a_truncated_shard_names_the_record_it_ends_in(dataset):
    path = dataset / _SHARD
    path.write_bytes(path.read_bytes()[:-10])
    assert f"shard {_SHARD}: record 5: truncated" in _fault(dataset)


def test_a_missing_record_is_noticed(dataset):
    _rewrite(dataset / _SHARD, _records(dataset / _SHARD)[:-1])
    assert f"shard {_SHARD}: holds 5 records, dataset_info.json says 6" in _fault(dataset)


def test_records_in_another_order_are_noticed(dataset):
    _rewrite(dataset / _SHARD, _records(dataset / _SHARD)[::-1])
    assert "its records are whole, but not those that were written" in _fault(dataset)


def test_a_picture_that_is_not_the_one_its_key_says_is_noticed(dataset):
    records = _records(dataset / _SHARD)
    values = schema.parse_example(records[2])
    values["image/encoded"] = [values["image/encoded"][0] + b"!"]
    records[2] = schema.serialise_example(values)
    _rewrite(dataset / _SHARD, records)
    assert f"record 2 ({_name(records[2])}): image/key/sha256 does not match the picture" in _fault(dataset)


def test_a_record_that_is_no_example_and_one_without_a_feature_are_noticed(dataset):
    records = _records(dataset / _SHARD)
    _rewrite(dataset / _SHARD, [records[0], b"\xff\xff\xff"])
    assert "record 1: not a tf.train.Example" in _fault(dataset)
    values = schema.parse_example(records[0])
    del values["image/height"]
    _rewrite(dataset / _SHARD, [schema.serialise_example(values)])
    assert "record 0" in (message := _fault(dataset)) and "no feature image/height" in message


def test_a_missing_and_a_stray_shard_are_named(dataset):
    (dataset / "val-00000-of-00001.tfrecord").write_bytes(b"")
    assert "shard val-00000-of-00001.tfrecord: dataset_info.json does not know it" in _fault(dataset)
    (dataset / _SHARD).unlink()
    assert f"shard {_SHARD}: missing" in _fault(dataset)


def test_counts_that_do_not_add_up_are_noticed(dataset):
    path = dataset / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"]["train"]["images"] = 13
    path.write_text(json.dumps(info))
    assert "split train: dataset_info.json gives it 13 images, its shards 12" in _fault(dataset)


def test_an_unfinished_or_absent_dataset_is_told_apart(dataset, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        verify(str(tmp_path / "nowhere"))
    (dataset / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        verify(str(dataset))
    (dataset / "dataset_info.json").write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="schema version 99, this program reads version 1"):
        verify(str(dataset))
    (dataset / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="its job did not finish"):
        verify(str(dataset))

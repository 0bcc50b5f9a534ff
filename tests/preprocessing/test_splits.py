"""Which picture goes where."""

import json

import numpy as np
import pytest

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion.splits import cut_splits, parse_splits, shard_ranges, shuffled
from preprocessing.dataset import schema, tfrecord


def _names(folder):
    """Split -> file names, in the order in which the shards hold them."""
    info = schema.read_dataset_info(str(folder))
    found = {}
    for split in info["splits"]:
        found[split] = []
        for path in schema.shard_paths(str(folder), split):
            with open(path, "rb") as file:
                found[split] += [schema.parse_example(data)["image/filename"][0] for data in tfrecord.Reader(file)]
    return found


def test_counts_are_met_exactly_and_no_picture_is_in_two_splits(coco_folder, run_convert, caplog):
    info = run_convert(split_sizes="train=7,test=3")
    names = _names(coco_folder.output)
    assert [len(names["train"]), len(names["test"])] == [7, 3]
    assert not set(names["train"]) & set(names["test"])
    assert info["splits"]["train"]["images"] == 7
    assert "2 of 12 pictures are in no split" in caplog.text


def test_fractions_that_add_up_to_one_take_every_picture(coco_folder, run_convert):
    run_convert(split_sizes="train=0.7,val=0.2,test=0.1")
    names = _names(coco_folder.output)
    assert [len(names[split]) for split in ("train", "val", "test")] == [8, 3, 1]


def test_another_seed_is_another_order_and_the_same_seed_the_same(tmp_path, run_convert, shard_bytes):
    run_convert(tmp_path / "a", seed=1)
    run_convert(tmp_path / "b", seed=1)
    run_convert(tmp_path / "c", seed=2)
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")
    assert _names(tmp_path / "a")["train"] != _names(tmp_path / "c")["train"]


def test_the_order_in_which_the_folder_is_listed_does_not_matter(tmp_path, run_convert, shard_bytes, monkeypatch):
    run_convert(tmp_path / "a")
    listed = filesystem.list_files
    monkeypatch.setattr(filesystem, "list_files", lambda *a, **k: reversed(list(listed(*a, **k))))
    run_convert(tmp_path / "b")
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")


def test_the_shards_are_the_same_to_the_byte_with_two_processes(tmp_path, run_convert, shard_bytes, coco_folder):
    duplicate = coco_folder.images / "zz.jpg"
    duplicate.write_bytes((coco_folder.images / "000000000001.jpg").read_bytes())
    arguments = {"split_sizes": "train=10,test=3", "max_rejected_fraction": 0.2}
    one = run_convert(tmp_path / "one", **arguments)
    two = run_convert(
        tmp_path / "two",
        beam_options=["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
        **arguments,
    )
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    assert len(shard_bytes(tmp_path / "one")) > 4
    assert one["splits"] == two["splits"]
    assert (tmp_path / "one" / "rejected.jsonl").read_bytes() == (tmp_path / "two" / "rejected.jsonl").read_bytes()


def test_shards_are_cut_by_size(coco_folder, run_convert):
    total = sum(path.stat().st_size for path in coco_folder.images.iterdir())
    info = run_convert(split_sizes="train=1.0", shard_mb=total / 3 / 1e6)
    assert [shard["file"] for shard in info["splits"]["train"]["shards"]] == [
        f"train-{index:05d}-of-00003.tfrecord" for index in range(3)
    ]
    assert [shard["images"] for shard in info["splits"]["train"]["shards"]] == [4, 4, 4]


def test_a_shuffle_is_a_permutation_that_a_new_name_does_not_disturb():
    names = [f"{index:05d}.jpg" for index in range(500)]
    order = shuffled(names, seed=3)
    assert sorted(order) == list(range(500))
    assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.15
    more = sorted([*names, "00100b.jpg"])
    assert [more[i] for i in shuffled(more, 3) if more[i] != "00100b.jpg"] == [names[i] for i in order]


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_shards_of_a_split_cover_it_without_gap(count):
    shards = shard_ranges(range(5, 5 + count), total_bytes=100_000, shard_bytes=9_000)
    assert [rank for shard in shards for rank in shard] == list(range(5, 5 + count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not NAME=SIZE"),
        ("train", "not NAME=SIZE"),
        ("train=", "neither a count nor a fraction"),
        ("train=many", "neither a count nor a fraction"),
        ("train=-3", "neither a count nor a fraction"),
        ("tr ain=3", "no name for a split"),
        ("train=3,train=4", "given twice"),
        ("train=3,test=0.5", "mixed"),
        ("train=0.9,test=0.2", "more than 1"),
        ("train=0", "would be empty"),
    ],
)
def test_splits_that_make_no_sense_are_refused(text, complaint):
    with pytest.raises(UserError, match=complaint) as raised:
        parse_splits(text)
    assert f"--splits={text}" in str(raised.value) and "train=4200,test=800" in str(raised.value)


def test_more_pictures_than_there_are_is_refused():
    with pytest.raises(UserError, match="asks for 13 pictures, there are 12"):
        cut_splits(parse_splits("train=10,test=3"), 12)
    with pytest.raises(UserError, match="val would be empty"):
        cut_splits(parse_splits("train=0.9,val=0.01"), 12)


def test_a_split_unknown_to_the_dataset_is_named_with_those_it_has(coco_folder, run_convert):
    run_convert()
    with pytest.raises(UserError, match="no split 'val'; there is train, test"):
        schema.shard_paths(str(coco_folder.output), "val")


def test_dataset_info_describes_the_files_beside_it(coco_folder, run_convert):
    info = run_convert()
    assert json.loads((coco_folder.output / "dataset_info.json").read_text()) == info
    for split in info["splits"].values():
        for shard in split["shards"]:
            assert (coco_folder.output / shard["file"]).stat().st_size == shard["bytes"]
        assert split["images"] == sum(shard["images"] for shard in split["shards"])
    assert info["arguments"]["seed"] == 0 and info["arguments"]["split_sizes"] == "train=8,test=4"
    assert {"id": 17, "name": "cat"} in info["categories"]
    assert sorted(path.name for path in coco_folder.output.iterdir() if path.suffix != ".tfrecord") == [
        "dataset_info.json",
        "rejected.jsonl",
    ]

"""The shard plan: which pictures go into which shard, with all that the annotations say about them.

    OUTPUT_DIR/unfinished-job/plan/train-00000-of-00002.tfrecord.json      one ShardPlan each

A plan is a file of its own, and its path is what travels through Beam: the job graph stays small however many
pictures there are, and the annotations reach only the worker that writes them. A plan depends on the
arguments and the folder alone, never on the workers, so that a shard planned again is the same shard.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion import splits
from preprocessing.conversion.coco import Annotations
from preprocessing.dataset import schema

_NAMES_AT_ONCE = 100_000


class ShardPlan(NamedTuple):
    """All that a worker needs to write one shard.

    Attributes:
      shard: its file name.
      rank: the first picture's place in the shuffled data set; the others follow on.
      images_dir: where the pictures are.
      check: how they are checked, as in `checks.check_picture`.
      pictures: one dict each: `name` (below images_dir) and, where known, `id`, `size` [width, height], `boxes`
        [[x, y, w, h]], `categories`, `texts`, `areas`, `crowds` and `captions`.
    """

    shard: str
    rank: int
    images_dir: str
    check: str
    pictures: list[dict[str, Any]]


class Listing(NamedTuple):
    """A folder's pictures: sorted names, and bytes of each (int64 [N])."""

    names: list[str]
    sizes: np.ndarray
    hidden: int

    def describe(self) -> dict[str, Any]:
        """How many pictures and bytes, and a digest of names and sizes: another folder's would differ."""
        digest = hashlib.sha256(self.sizes.astype("<i8").tobytes())
        for begin in range(0, len(self.names), _NAMES_AT_ONCE):
            names = "\0".join([*self.names[begin : begin + _NAMES_AT_ONCE], ""])
            digest.update(names.encode("utf-8", "surrogateescape"))
        return {"pictures": len(self.names), "bytes": int(self.sizes.sum()), "sha256": digest.hexdigest()}


def list_pictures(images_dir: str) -> Listing:
    """Lists a folder and the folders below it.

    Every file counts as a picture, so that what is none is reported; only hidden ones (.DS_Store) are passed
    over.

    Raises:
      UserError: there is no such folder, or nothing in it.
    """
    names: list[str] = []
    sizes = array("q")
    hidden = 0
    for file in filesystem.list_files(images_dir):
        if _is_hidden(file.name):
            hidden += 1
        else:
            names.append(file.name)
            sizes.append(file.size)
    if not names:
        state = "no pictures in it" if hidden or filesystem.exists(images_dir) else "no such folder"
        raise UserError(f"--images_dir={images_dir}: {state}; it must hold the pictures, such as COCO's train2017")
    # Not a sorted list of pairs: of ten million pictures that would be another gigabyte.
    order = np.fromiter(sorted(range(len(names)), key=names.__getitem__), np.int64, len(names))
    return Listing([names[picture] for picture in order], np.asarray(sizes, np.int64)[order], hidden)


def plan_shards(
    listing: Listing,
    annotations: Annotations,
    wanted: dict[str, Union[int, float]],
    images_dir: str,
    shard_bytes: float,
    seed: int,
    check: str,
) -> Iterator[ShardPlan]:
    """Yields every shard's plan, one at a time: those of ten million pictures need not be in memory together.

    Raises:
      UserError: more pictures are wanted than there are.
    """
    order = splits.shuffled(listing.names, seed)
    for split, ranks in splits.cut_splits(wanted, len(order)).items():
        total = int(listing.sizes[order[ranks.start : ranks.stop]].sum())
        shards = splits.shard_ranges(ranks, total, shard_bytes)
        for index, shard in enumerate(shards):
            names = (listing.names[picture] for picture in order[shard.start : shard.stop])
            yield ShardPlan(
                schema.shard_name(split, index, len(shards)),
                shard.start,
                images_dir,
                check,
                [_describe(name, annotations) for name in names],
            )


def missing_pictures(annotations: Annotations, names: Sequence[str]) -> list[str]:
    """The pictures that the annotations name and the folder lacks, sorted."""
    return sorted(annotations.images.keys() - set(names)) if annotations.images else []


def write_plan(plan: ShardPlan, directory: str) -> str:
    """Writes a plan into a folder and returns its path."""
    path = filesystem.join(directory, f"{plan.shard}.json")
    filesystem.write_json(path, plan._asdict(), indent=0)
    return path


def read_plan(path: str) -> ShardPlan:
    """Reads what `write_plan` wrote."""
    return ShardPlan(**filesystem.read_json(path))


def _describe(name: str, annotations: Annotations) -> dict[str, Any]:
    image = annotations.images.get(name)
    if image is None:
        return {"name": name}
    objects = annotations.objects(name)
    texts = [annotations.categories[category] for category in objects.categories]
    known = {"id": image.id, "size": image.size, **objects._asdict(), "texts": texts}
    known["captions"] = annotations.captions(name)
    return {"name": name, **{key: value for key, value in known.items() if value not in (None, [])}}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name

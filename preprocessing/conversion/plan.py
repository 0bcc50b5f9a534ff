"""The shard plan: which images go into which shard, with their annotations.

    OUTPUT_DIR/unfinished-job/plan/train-00000-of-00002.tfrecord.json      one ShardPlan each

Each plan is a separate file, and only its path passes through Beam: the job graph stays small for any number of images,
and the annotations reach only the worker that writes them. A plan depends only on the arguments and the folder, never
on the workers, so planning a shard again gives the same shard.
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
    """Everything that a worker needs to write one shard.

    Attributes:
      shard: the shard's file name.
      rank: the first image's position in the shuffled dataset; the others follow.
      images_dir: the folder of the images.
      check: how to check them, as in `checks.check_picture`.
      pictures: one dict per image: `name` (path below images_dir) and, where known, `id`, `size` [width, height],
        `boxes` [[x, y, w, h]], `categories`, `texts`, `areas`, `crowds` and `captions`.
    """

    shard: str
    rank: int
    images_dir: str
    check: str
    pictures: list[dict[str, Any]]


class Listing(NamedTuple):
    """A folder's images.

    Attributes:
      names: sorted.
      sizes: int64 [N], bytes of each file.
      hidden: number of hidden files, which are not listed.
    """

    names: list[str]
    sizes: np.ndarray
    hidden: int

    def describe(self) -> dict[str, Any]:
        """Returns the number of images and bytes, and a digest of names and sizes that identifies the listing."""
        digest = hashlib.sha256(self.sizes.astype("<i8").tobytes())
        for begin in range(0, len(self.names), _NAMES_AT_ONCE):
            names = "\0".join([*self.names[begin : begin + _NAMES_AT_ONCE], ""])
            digest.update(names.encode("utf-8", "surrogateescape"))
        return {"pictures": len(self.names), "bytes": int(self.sizes.sum()), "sha256": digest.hexdigest()}


def list_pictures(images_dir: str) -> Listing:
    """Lists a folder recursively.

    Every file counts as an image, so that those that are not get reported; only hidden files (.DS_Store) are skipped.

    Raises:
      UserError: the folder does not exist or holds no images.
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
    # Not a sorted list of pairs, which would take another gigabyte for ten million images.
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
    """Yields the shards' plans one at a time, since those of ten million images would take too much memory.

    Raises:
      UserError: the splits ask for more images than there are.
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
    """Returns the images that are annotated but missing from the folder, sorted by name."""
    return sorted(annotations.images.keys() - set(names)) if annotations.images else []


def write_plan(plan: ShardPlan, directory: str) -> str:
    """Writes a plan into a folder and returns its path."""
    path = filesystem.join(directory, f"{plan.shard}.json")
    filesystem.write_json(path, plan._asdict(), indent=0)
    return path


def read_plan(path: str) -> ShardPlan:
    """Reads a plan written by `write_plan`."""
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

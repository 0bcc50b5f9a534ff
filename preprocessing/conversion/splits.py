"""Assigns images to splits by nothing but their name and the seed.

Every name gets a pseudo-random rank: the SHA-256 of seed and name. Sorting by rank shuffles the images the same way
for any listing order and any number of workers. The splits are consecutive ranges of ranks.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Union

import numpy as np

from common.command_line import UserError

_HOW = "expected counts as in train=4200,test=800, or fractions as in train=0.9,val=0.1"


def parse_splits(text: str) -> dict[str, Union[int, float]]:
    """Parses `train=4200,test=800` (numbers of images) or `train=0.9,val=0.1` (fractions, with a decimal point).

    Returns:
      Split name -> int count or float fraction, in the order given, all of one kind.

    Raises:
      UserError: the text has any other form.
    """

    def wrong(what: str) -> UserError:
        return UserError(f"--splits={text}: {what}; {_HOW}")

    splits: dict[str, Union[int, float]] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise wrong(f"{part.strip()!r} is not NAME=SIZE")
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise wrong(f"{name!r} is no name for a split (letters, digits and _)")
        if name in splits:
            raise wrong(f"{name} is given twice")
        if re.fullmatch(r"\d+", value):
            splits[name] = int(value)
        elif re.fullmatch(r"\d*\.\d+|\d+\.\d*", value):
            splits[name] = float(value)
        else:
            raise wrong(f"{value!r} is neither a count nor a fraction")
        if splits[name] == 0:
            raise wrong(f"{name} would be empty")
    if len({type(size) for size in splits.values()}) > 1:
        raise wrong("counts and fractions are mixed")
    total = sum(splits.values())
    if isinstance(total, float) and total > 1 + 1e-9:
        raise wrong(f"the fractions add up to {total:g}, more than 1")
    return splits


def cut_splits(splits: dict[str, Union[int, float]], pictures: int) -> dict[str, range]:
    """Divides the ranks of `pictures` images into splits.

    Returns:
      Split name -> its range of ranks; consecutive, in the order of `splits`.

    Raises:
      UserError: there are too few images.
    """
    text = ",".join(f"{name}={size}" for name, size in splits.items())
    sizes = list(splits.values())
    if isinstance(sizes[0], int):
        ends = np.cumsum(sizes)
    else:
        # Round the boundaries, not the sizes, so that fractions that add up to 1 use every image.
        ends = np.floor(np.cumsum(sizes) * pictures + 0.5).astype(int).clip(max=pictures)
    if ends[-1] > pictures:
        raise UserError(f"--splits={text}: asks for {ends[-1]} pictures, there are {pictures}")
    cut = {name: range(begin, end) for name, begin, end in zip(splits, [0, *ends[:-1].tolist()], ends.tolist())}
    for name, ranks in cut.items():
        if not ranks:
            raise UserError(f"--splits={text}: {name} would be empty, there are {pictures} pictures; give it more")
    return cut


def shuffled(names: Sequence[str], seed: int) -> np.ndarray:
    """Shuffles sorted names.

    Args:
      names: unique, sorted.
      seed: any integer; a different seed gives a different order.

    Returns:
      int64 [len(names)]: indices into `names`, in shuffled order.
    """
    prefix = f"{seed}\0".encode()
    ranks = bytearray()
    for name in names:
        ranks += hashlib.sha256(prefix + name.encode("utf-8", "surrogateescape")).digest()[:8]
    # Stable, so that names with the same rank stay in sorted order.
    return np.argsort(np.frombuffer(ranks, ">u8"), kind="stable")


def shard_ranges(ranks: range, total_bytes: int, shard_bytes: float) -> list[range]:
    """Divides a split into shards of about `shard_bytes` bytes, whose numbers of images differ by at most one."""
    count = min(len(ranks), max(1, round(total_bytes / shard_bytes)))
    cuts = [ranks.start + len(ranks) * index // count for index in range(count + 1)]
    return [range(begin, end) for begin, end in zip(cuts, cuts[1:])]

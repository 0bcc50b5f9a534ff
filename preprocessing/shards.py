"""Writes a shard: file by file, one picture in memory at a time.

    OUTPUT_DIR/
      unfinished-job/
        staged/train-00000-of-00002.tfrecord.6f9c…       written by `stage_shard`
        manifests/train-00000-of-00002.tfrecord.json     what the shard holds, and what was left out
      train-00000-of-00002.tfrecord                      put there by `publish_shard`

Between the two, the job learns which pictures are the same as an earlier one in any shard. Both may be run
again, or by two workers at once, as Beam's runners do after a fault: a staged file has a name of its own and
never changes, and publishing leads to the same bytes each time.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from apache_beam.io.filesystem import BeamIOError

from configs import storage
from preprocessing import schema, tfrecord
from preprocessing.checks import Picture, Rejected, check_picture
from preprocessing.plan import ShardPlan

UNFINISHED = "unfinished-job"


class JobFolders(NamedTuple):
    """Where a job keeps what is not yet, or never, part of the dataset."""

    output: str

    @property
    def unfinished(self) -> str:
        return storage.join(self.output, UNFINISHED)

    @property
    def plan(self) -> str:
        return storage.join(self.unfinished, "plan")

    @property
    def staged(self) -> str:
        return storage.join(self.unfinished, "staged")

    @property
    def manifests(self) -> str:
        return storage.join(self.unfinished, "manifests")


class StagedPicture(NamedTuple):
    """A picture that was written: `rank` is its place in the shuffled data set, `record` its place in the shard."""

    sha256: bytes
    rank: int
    shard: str
    record: int
    name: str


class Duplicate(NamedTuple):
    """A record that repeats an earlier picture: `original` is that one's name."""

    record: int
    name: str
    original: str


def stage_shard(plan: ShardPlan, folders: JobFolders) -> tuple[dict[str, Any], list[StagedPicture]]:
    """Writes all good pictures of a plan into a staged file.

    Returns:
      The shard's manifest (`file`, `staged`, `images`, `bytes`, `crc32c`, `rejected`) and the pictures in it.
    """
    staged = storage.join(folders.staged, f"{plan.shard}.{uuid.uuid4().hex}")
    read = storage.reader(plan.images_dir)
    pictures, rejected = [], []
    with storage.open_for_writing(staged) as file:
        writer = tfrecord.Writer(file)
        for offset, described in enumerate(plan.pictures):
            name = described["name"]
            try:
                data = _read_picture(read, name)
                size = described.get("size")
                picture = check_picture(data, plan.check, tuple(size) if size else None)
            except Rejected as error:
                rejected.append(reject(name, error.reason, error.detail))
                continue
            digest = hashlib.sha256(data)
            pictures.append(StagedPicture(digest.digest(), plan.rank + offset, plan.shard, writer.records, name))
            values = example_values(described, data, picture, digest.hexdigest())
            writer.write(*schema.example_pieces(values))
    return _manifest(plan.shard, staged, writer, rejected), pictures


def publish_shard(manifest: dict[str, Any], duplicates: Sequence[Duplicate], folders: JobFolders) -> None:
    """Puts a staged shard in its place, without the duplicates, and writes its manifest.

    Args:
      manifest: as `stage_shard` returned it.
      duplicates: the records to leave out.
      folders: the job's.
    """
    target = storage.join(folders.output, manifest["file"])
    staged = manifest["staged"]
    if not storage.exists(staged):
        # An earlier attempt came as far as here. Its manifest was written before, so nothing is left to do.
        if storage.exists(target):
            return
        raise FileNotFoundError(f"{staged} is gone and {target} was not written; run the job again")
    if not duplicates:
        _write_manifest(manifest, folders)
        storage.rename(staged, target)
        return

    left_out = {duplicate.record for duplicate in duplicates}
    rewritten = f"{staged}.{uuid.uuid4().hex}"
    with storage.open_for_reading(staged) as source, storage.open_for_writing(rewritten) as file:
        writer = tfrecord.Writer(file)
        for record, data in enumerate(tfrecord.Reader(source)):
            if record not in left_out:
                writer.write(data)
    rejected = manifest["rejected"] + [
        reject(duplicate.name, "duplicate", f"the same bytes as {duplicate.original}") for duplicate in duplicates
    ]
    _write_manifest(_manifest(manifest["file"], staged, writer, rejected), folders)
    storage.rename(rewritten, target)
    storage.delete([staged])


def reject(name: str, reason: str, detail: str) -> dict[str, str]:
    """A line of rejected.jsonl."""
    return {"filename": name, "reason": reason, "detail": detail}


def example_values(described: dict[str, Any], data: bytes, picture: Picture, sha256: str) -> dict[str, Sequence[Any]]:
    """The features of one picture, key by key as in `schema.FEATURES`.

    Args:
      described: the picture's entry in a ShardPlan.
      data: the file's bytes.
      picture: what the check found. Boxes are divided by its size and clipped to 0..1: COCO's reach up to a pixel
        over the edge.
      sha256: of `data`, hexadecimal.
    """
    name = described["name"].encode("utf-8", "surrogateescape")
    boxes = described.get("boxes", [])
    width, height = picture.width, picture.height
    return {
        schema.ENCODED: [data],
        schema.FORMAT: [picture.format.encode()],
        schema.HEIGHT: [height],
        schema.WIDTH: [width],
        schema.FILENAME: [name],
        schema.SOURCE_ID: [str(described["id"]).encode() if "id" in described else name],
        schema.SHA256: [sha256.encode()],
        schema.XMIN: [_unit(x / width) for x, _, _, _ in boxes],
        schema.XMAX: [_unit((x + w) / width) for x, _, w, _ in boxes],
        schema.YMIN: [_unit(y / height) for _, y, _, _ in boxes],
        schema.YMAX: [_unit((y + h) / height) for _, y, _, h in boxes],
        schema.LABEL: described.get("categories", []),
        schema.TEXT: [text.encode() for text in described.get("texts", [])],
        schema.IS_CROWD: described.get("crowds", []),
        schema.AREA: described.get("areas", []),
        schema.CAPTION: [caption.encode() for caption in described.get("captions", [])],
    }


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _read_picture(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except FileNotFoundError:
        raise Rejected("missing", "gone since the folder was listed") from None
    except (OSError, BeamIOError) as error:
        raise Rejected("unreadable", str(getattr(error, "strerror", None) or error)) from None


def _manifest(shard: str, staged: str, writer: tfrecord.Writer, rejected: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "file": shard,
        "staged": staged,
        "images": writer.records,
        "bytes": writer.bytes,
        "crc32c": writer.crc32c,
        "rejected": rejected,
    }


def _write_manifest(manifest: dict[str, Any], folders: JobFolders) -> None:
    storage.write_json(storage.join(folders.manifests, f"{manifest['file']}.json"), manifest)

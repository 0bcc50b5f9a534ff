"""Writes a shard with only one image in memory at a time.

    OUTPUT_DIR/
      unfinished-job/
        job.json                                                the job's arguments and input
        plan/train-00000-of-00002.tfrecord.json                 see `plan`
        staged/train-00000-of-00002.tfrecord                    written by `stage_shard`
        staged-manifests/train-00000-of-00002.tfrecord.json     its content, and what was rejected
        manifests/train-00000-of-00002.tfrecord.json            the same for the published shard
      train-00000-of-00002.tfrecord                             moved here by `publish_shard`

Between staging and publishing, the job finds the images that duplicate an earlier one in any shard. Both steps may run
again, or on two workers at once, as Beam's runners do after a fault: every file appears complete, and always with the
same bytes. A resumed job does not rewrite a shard that matches its manifest.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import google_crc32c
from apache_beam.io.filesystem import BeamIOError

from common.storage import filesystem
from preprocessing.conversion.checks import Picture, Rejected, check_picture
from preprocessing.conversion.plan import ShardPlan
from preprocessing.dataset import schema, tfrecord

UNFINISHED = "unfinished-job"

_CHUNK_BYTES = 1 << 20


class JobFolders(NamedTuple):
    """The paths of a job's files: its shards, and the working files that are not part of the dataset."""

    output: str

    @property
    def unfinished(self) -> str:
        return filesystem.join(self.output, UNFINISHED)

    @property
    def plan(self) -> str:
        return filesystem.join(self.unfinished, "plan")

    @property
    def staged(self) -> str:
        return filesystem.join(self.unfinished, "staged")

    @property
    def job(self) -> str:
        return filesystem.join(self.unfinished, "job.json")

    def staged_manifest(self, shard: str) -> str:
        return filesystem.join(self.unfinished, "staged-manifests", f"{shard}.json")

    def manifest(self, shard: str) -> str:
        return filesystem.join(self.unfinished, "manifests", f"{shard}.json")

    def manifest_of(self, plan_path: str) -> str:
        """Returns the path of the manifest for the shard whose plan is at `plan_path`."""
        return self.manifest(plan_path.rpartition("/")[2].removesuffix(".json"))

    def staged_shard(self, shard: str) -> str:
        return filesystem.join(self.staged, shard)

    def shard(self, shard: str) -> str:
        return filesystem.join(self.output, shard)

    def written(self) -> int:
        """Returns the bytes of all staged and published shards; in an object store, only complete ones count."""
        staged = f"{UNFINISHED}/staged/"
        files = filesystem.list_files(self.output)
        return sum(file.size for file in files if schema.is_shard_name(file.name) or file.name.startswith(staged))


class StagedPicture(NamedTuple):
    """A written image: `rank` is its position in the shuffled dataset, `record` its position in the shard."""

    sha256: str  # hexadecimal
    rank: int
    record: int
    name: str


class Duplicate(NamedTuple):
    """A record that duplicates an earlier image, whose name is `original`."""

    record: int
    name: str
    original: str


def stage_shard(plan: ShardPlan, folders: JobFolders) -> tuple[dict[str, Any], list[StagedPicture]]:
    """Writes all valid images of a plan to a staged file, unless that has already been done.

    Returns:
      The shard's manifest (`file`, `images`, `bytes`, `crc32c`, `rejected`) and the images in it.
    """
    return _staged_before(plan.shard, folders) or _stage(plan, folders)


def _staged_before(shard: str, folders: JobFolders) -> Optional[tuple[dict[str, Any], list[StagedPicture]]]:
    """Returns the earlier result of `stage_shard`, if the shard is still complete, staged or published; else None."""
    staged = _read_if_there(folders.staged_manifest(shard))
    if staged is None:
        return None
    if not _holds(folders.staged_shard(shard), staged["manifest"]):
        published = _read_if_there(folders.manifest(shard))
        if published is None or not _holds(folders.shard(shard), published):
            return None
    return staged["manifest"], [StagedPicture(*picture) for picture in staged["pictures"]]


def _stage(plan: ShardPlan, folders: JobFolders) -> tuple[dict[str, Any], list[StagedPicture]]:
    read = filesystem.reader(plan.images_dir)
    pictures, rejected = [], []
    with filesystem.create_whole(folders.staged_shard(plan.shard)) as file:
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
            digest = hashlib.sha256(data).hexdigest()
            pictures.append(StagedPicture(digest, plan.rank + offset, writer.records, name))
            values = example_values(described, data, picture, digest)
            writer.write(*schema.example_pieces(values))
    manifest = _manifest(plan.shard, writer, rejected)
    # Written last, because it certifies that the file is complete.
    filesystem.write_json(folders.staged_manifest(plan.shard), {"manifest": manifest, "pictures": pictures}, indent=0)
    return manifest, pictures


def publish_shard(manifest: dict[str, Any], duplicates: Sequence[Duplicate], folders: JobFolders) -> None:
    """Moves a staged shard to its final path, without the duplicates, and writes its manifest.

    Args:
      manifest: as returned by `stage_shard`.
      duplicates: the records to leave out.
      folders: the job's folders.
    """
    shard = manifest["file"]
    staged, target = folders.staged_shard(shard), folders.shard(shard)
    left_out = [
        reject(duplicate.name, "duplicate", f"the same bytes as {duplicate.original}") for duplicate in duplicates
    ]
    if not filesystem.exists(staged):
        # An earlier attempt finished: removing the staged file is the last step.
        published = _read_if_there(folders.manifest(shard))
        if published is None or published["rejected"] != manifest["rejected"] + left_out:
            raise FileNotFoundError(f"{staged} is gone, and {target} does not hold the same; run the job again")
        return
    if not duplicates:
        _write_manifest(manifest, folders)
        filesystem.rename(staged, target)
        return

    records = {duplicate.record for duplicate in duplicates}
    with filesystem.open_for_reading(staged) as source, filesystem.create_whole(target, folders.staged) as file:
        writer = tfrecord.Writer(file)
        for record, data in enumerate(tfrecord.Reader(source)):
            if record not in records:
                writer.write(data)
    _write_manifest(_manifest(shard, writer, manifest["rejected"] + left_out), folders)
    filesystem.delete([staged])


def reject(name: str, reason: str, detail: str) -> dict[str, str]:
    """Returns a line of rejected.jsonl."""
    return {"filename": name, "reason": reason, "detail": detail}


def example_values(described: dict[str, Any], data: bytes, picture: Picture, sha256: str) -> dict[str, Sequence[Any]]:
    """Returns the features of one image, with the keys of `schema.FEATURES`.

    Args:
      described: the image's entry in a ShardPlan.
      data: the file's bytes.
      picture: the result of the check. Boxes are divided by its size and clipped to 0..1, because COCO's boxes extend
        up to a pixel beyond the edge.
      sha256: SHA-256 of `data`, hexadecimal.
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


def _manifest(shard: str, writer: tfrecord.Writer, rejected: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "file": shard,
        "images": writer.records,
        "bytes": writer.bytes,
        "crc32c": writer.crc32c,
        "rejected": rejected,
    }


def _write_manifest(manifest: dict[str, Any], folders: JobFolders) -> None:
    filesystem.write_json(folders.manifest(manifest["file"]), manifest)


def _read_if_there(path: str) -> Any:
    return filesystem.read_json(path) if filesystem.exists(path) else None


def _holds(path: str, manifest: dict[str, Any]) -> bool:
    """Returns whether a file exists and matches its manifest's size and checksum."""
    if not filesystem.exists(path) or filesystem.file_size(path) != manifest["bytes"]:
        return False
    checksum = google_crc32c.Checksum()
    with filesystem.open_for_reading(path) as file:
        for chunk in checksum.consume(file, _CHUNK_BYTES):
            del chunk
    return checksum.digest().hex() == manifest["crc32c"]

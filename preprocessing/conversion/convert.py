"""A folder of pictures into a dataset: the library behind `preprocessing.coco_to_tfrecord`.

    from preprocessing.conversion.convert import convert

    info = convert("coco/train2017", "tfrecords", "train=0.9,val=0.1", annotations="coco/instances_train2017.json")
    print(info["splits"]["train"]["images"])

The order of steps makes a half-written dataset impossible to mistake for a whole one: everything that can be
wrong with the arguments is found before the first byte is written; shards are staged in `unfinished-job/`;
`dataset_info.json` comes last. A job that ends early, whatever ended it, is taken up by the next with the same
arguments: see `preprocessing.conversion.resume`. Only names of our own pattern are ever deleted.
"""

import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from apache_beam.io.filesystems import FileSystems

from common.beam import runner as beam_runner
from common.beam.progress import WatchedProgress
from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion import pipeline, resume, shards, splits
from preprocessing.conversion.checks import DECODE
from preprocessing.conversion.coco import Annotations
from preprocessing.conversion.job import Arguments, Job, output_errors
from preprocessing.conversion.plan import Listing, list_pictures, missing_pictures, plan_shards, write_plan
from preprocessing.conversion.shards import JobFolders
from preprocessing.dataset import schema

_LOG = logging.getLogger(__name__)

_MB = 1e6


def convert(
    images_dir: str,
    output_dir: str,
    split_sizes: str = "train=1.0",
    annotations: Optional[str] = None,
    captions: Optional[str] = None,
    shard_mb: float = 128,
    seed: int = 0,
    check: str = DECODE,
    max_rejected_fraction: float = 0.01,
    overwrite: bool = False,
    beam_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a dataset.

    Args:
      images_dir: folder or URL of the pictures; folders below it are read too.
      output_dir: folder or URL to write to; files in it that are not a dataset's stay untouched.
      split_sizes: as in `splits.parse_splits`.
      annotations: COCO instances JSON, or None.
      captions: COCO captions JSON, or None.
      shard_mb: aimed-at size of a shard, in 10^6 bytes.
      seed: decides which picture goes where.
      check: "decode" or "header", see `checks.check_picture`.
      max_rejected_fraction: more rejected pictures than this, 0..1, end the job with an error.
      overwrite: replace a finished dataset, or an unfinished job with other arguments.
      beam_options: Beam's own, such as ["--runner=FlinkRunner"].

    Returns:
      The content of dataset_info.json.

    Raises:
      UserError: an argument cannot be used, or too many pictures were rejected: then nothing is left behind. Or the
        output cannot be written, or holds a dataset or a job of other arguments.
    """
    started = time.monotonic()
    options = beam_runner.parse_options(beam_options)
    runner = beam_runner.create(options, groups=True)
    FileSystems.set_options(options)  # credentials and endpoints of object storage
    arguments = Arguments(
        images_dir=images_dir,
        output_dir=output_dir,
        split_sizes=split_sizes,
        annotations=annotations,
        captions=captions,
        shard_mb=shard_mb,
        seed=seed,
        check=check,
        max_rejected_fraction=max_rejected_fraction,
    ).validated()
    folders = JobFolders(arguments.output_dir)
    # Refuse other arguments now, other input below: the annotations may take half a gigabyte to read.
    resume.find(Job(arguments), folders, overwrite)

    listing = list_pictures(arguments.images_dir)
    known = _read_annotations(arguments.annotations, arguments.captions)
    job = Job(arguments, {"images_dir": listing.describe(), **known.digests})
    state = resume.find(job, folders, overwrite)
    if state.finished:
        _LOG.info("%s: finished already, with these arguments; --overwrite makes it again", folders.output)
        return state.finished
    work = _Work.of(arguments, listing, known)
    _tell_plan(listing.names, listing.hidden, work.used, known)
    with output_errors(folders.output):
        resume.begin(job, folders, state)
        # What is missing is known by now; reading half a million images first would not make it less.
        _refuse_rejects(work.missing, work.images, max_rejected_fraction, folders)
        plan_paths = _write_plans(arguments, listing, known, folders)
        del known, listing  # a million images' annotations are on disk now

        with WatchedProgress(folders.written, work.bytes, desc="shards", unit="B", unit_scale=True):
            pipeline.run(plan_paths, folders, runner, options)

        info = _publish(job, work, plan_paths, folders)
    _tell_end(info, folders.output, time.monotonic() - started)
    return info


class _Work(NamedTuple):
    """What there is to do.

    Attributes:
      used: images that are in a split.
      missing: a reject for each image that the annotations name and the folder lacks.
      bytes: of the images used, estimated.
      categories: COCO's, by id.
      flat_boxes: boxes without width or height, left out.
    """

    used: int
    missing: list[dict[str, str]]
    bytes: int
    categories: list[dict[str, Any]]
    flat_boxes: int

    @property
    def images(self) -> int:
        """Images, missing ones included."""
        return self.used + len(self.missing)

    @classmethod
    def of(cls, arguments: Arguments, listing: Listing, known: Annotations) -> "_Work":
        """Counts it."""
        used = sum(len(ranks) for ranks in splits.cut_splits(arguments.wanted, len(listing.names)).values())
        missing = [
            shards.reject(name, "missing", "named by the annotations, not in --images_dir")
            for name in missing_pictures(known, listing.names)
        ]
        categories = [{"id": key, "name": name} for key, name in sorted(known.categories.items())]
        total = int(listing.sizes.sum()) * used // len(listing.names)
        return cls(used, missing, total, categories, known.flat_boxes)


def _write_plans(arguments: Arguments, listing: Listing, known: Annotations, folders: JobFolders) -> list[str]:
    """Writes a plan per shard; returns their paths."""
    plans = plan_shards(
        listing,
        known,
        arguments.wanted,
        arguments.images_dir,
        arguments.shard_mb * _MB,
        arguments.seed,
        arguments.check,
    )
    write = functools.partial(write_plan, directory=folders.plan)
    return list(filesystem.map_files(write, plans, folders.output))


def _publish(job: Job, work: _Work, plan_paths: list[str], folders: JobFolders) -> dict[str, Any]:
    """Checks the shards and writes dataset_info.json, whose content it returns; removes the job's own files."""
    arguments, output_dir = job.arguments, folders.output
    manifests = list(filesystem.map_files(filesystem.read_json, map(folders.manifest_of, plan_paths), output_dir))
    rejected = work.missing + [line for manifest in manifests for line in manifest["rejected"]]
    _refuse_rejects(rejected, work.images, arguments.max_rejected_fraction, folders)
    _check_sizes(manifests, output_dir)
    info = {
        "schema_version": schema.SCHEMA_VERSION,
        "splits": {split: _split_info(split, manifests) for split in arguments.wanted},
        "rejected": {"images": len(rejected), "by_reason": _by_reason(rejected)},
        "boxes_without_area": work.flat_boxes,
        "categories": work.categories,
        "features": {key: feature.kind for key, feature in schema.FEATURES.items()},
        **job.described(),
    }
    filesystem.write_json(schema.dataset_path(output_dir, schema.DATASET_INFO), info, scratch=folders.unfinished)
    filesystem.delete_tree(folders.unfinished)
    return info


def _read_annotations(annotations: Optional[str], captions: Optional[str]) -> Annotations:
    known = Annotations()
    for flag, path, read in (
        ("annotations", annotations, known.read_instances),
        ("captions", captions, known.read_captions),
    ):
        if path:
            if not filesystem.exists(path):
                raise UserError(f"--{flag}={path}: no such file")
            read(path)
    return known


def _refuse_rejects(rejected: list[dict[str, str]], pictures: int, limit: float, folders: JobFolders) -> None:
    """Writes rejected.jsonl; if there are more than the limit, ends the job and leaves nothing else of it."""
    rejected = sorted(rejected, key=lambda line: (line["filename"], line["reason"]))
    path = schema.dataset_path(folders.output, schema.REJECTED)
    filesystem.write_text(path, "".join(json.dumps(line) + "\n" for line in rejected), scratch=folders.unfinished)
    if len(rejected) <= limit * pictures:
        return
    resume.clear(folders, keep_rejected=True)
    first = {line["reason"]: line["filename"] for line in reversed(rejected)}
    common = [
        f"{count} {reason} ({first[reason]}{', …' if count > 1 else ''})"
        for reason, count in Counter(_by_reason(rejected)).most_common(3)
    ]
    raise UserError(
        f"{len(rejected)} of {pictures} pictures rejected ({len(rejected) / pictures:.1%}, "
        f"--max_rejected_fraction={limit:g}): {', '.join(common)}; all are listed in {path}; "
        "mend or remove them, or allow a larger fraction"
    )


def _by_reason(rejected: list[dict[str, str]]) -> dict[str, int]:
    return dict(sorted(Counter(line["reason"] for line in rejected).items()))


def _split_info(split: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [manifest for manifest in manifests if manifest["file"].rpartition("-of-")[0].rpartition("-")[0] == split]
    return {
        "images": sum(manifest["images"] for manifest in mine),
        "bytes": sum(manifest["bytes"] for manifest in mine),
        "shards": [{key: manifest[key] for key in ("file", "images", "bytes", "crc32c")} for manifest in mine],
    }


def _check_sizes(manifests: list[dict[str, Any]], output_dir: str) -> None:
    """Every shard must be there in full before dataset_info.json says so."""
    sizes = {file.name: file.size for file in filesystem.list_files(output_dir, recursive=False)}
    for manifest in manifests:
        size = sizes.get(manifest["file"])
        if size != manifest["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise UserError(
                f"shard {manifest['file']} {found}, {manifest['bytes']} were written: was {output_dir} "
                "changed during the job? run it again"
            )


def _tell_plan(names: list[str], hidden: int, used: int, known: Annotations) -> None:
    if hidden:
        _LOG.info("%d hidden files passed over", hidden)
    if used < len(names):
        _LOG.info("%d of %d pictures are in no split", len(names) - used, len(names))
    if known.images:
        strangers = sum(name not in known.images for name in names)
        if strangers:
            _LOG.info("%d pictures are not in the annotations: kept, without objects", strangers)
    if known.flat_boxes:
        _LOG.info("%d boxes without width or height left out", known.flat_boxes)


def _tell_end(info: dict[str, Any], output_dir: str, seconds: float) -> None:
    parts = [
        f"{split} {content['images']} images in {len(content['shards'])} shards"
        for split, content in info["splits"].items()
    ]
    images = sum(content["images"] for content in info["splits"].values())
    megabytes = sum(content["bytes"] for content in info["splits"].values()) / _MB
    reasons = ", ".join(f"{count} {reason}" for reason, count in info["rejected"]["by_reason"].items())
    _LOG.info(
        "%s: %s; %.0f MB, %.1f s, %.0f images/s; rejected %d%s",
        output_dir,
        ", ".join(parts),
        megabytes,
        seconds,
        images / seconds,
        info["rejected"]["images"],
        f" ({reasons})" if reasons else "",
    )

"""Converts a folder of images to a dataset: the library behind `preprocessing.coco_to_tfrecord`.

    from preprocessing.conversion.convert import convert

    info = convert("coco/train2017", "tfrecords", "train=0.9,val=0.1", annotations="coco/instances_train2017.json")
    print(info["splits"]["train"]["images"])

An incomplete dataset cannot be mistaken for a complete one: all arguments are validated before the first byte is
written, shards are staged in `unfinished-job/`, and `dataset_info.json` is written last. If a job ends early for any
reason, the next job with the same arguments resumes it (see `preprocessing.conversion.resume`). Only files that match
our own naming patterns are ever deleted.
"""

import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Optional

from apache_beam.io.filesystems import FileSystems

from common.beam import runner as beam_runner
from common.beam.progress import WatchedProgress
from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion import pipeline, resume, shards, splits
from preprocessing.conversion.checks import DECODE, HEADER
from preprocessing.conversion.coco import Annotations
from preprocessing.conversion.plan import list_pictures, missing_pictures, plan_shards, write_plan
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
      images_dir: folder or URL of the images, read recursively.
      output_dir: folder or URL to write to; files in it that do not belong to a dataset are left alone.
      split_sizes: such as "train=4200,test=800" or "train=0.9,val=0.1".
      annotations: path of COCO instances JSON, or None.
      captions: path of COCO captions JSON, or None.
      shard_mb: target size of a shard, in 10^6 bytes.
      seed: determines which split and shard an image goes into.
      check: "decode" (decode every image) or "header" (read headers and end markers only).
      max_rejected_fraction: fraction of rejected images, 0..1, above which the job fails.
      overwrite: replace a finished dataset, or an unfinished job with other arguments.
      beam_options: Beam's options, such as ["--runner=FlinkRunner"].

    Returns:
      The content of dataset_info.json.

    Raises:
      UserError: an argument is invalid; too many images were rejected, in which case only rejected.jsonl remains; or
        the output cannot be written, or holds a dataset or job with other arguments.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("beam_options", "overwrite")}
    started = time.monotonic()
    options = beam_runner.parse_options(beam_options)
    runner = beam_runner.create(options, groups=True)
    FileSystems.set_options(options)  # including credentials and endpoints of object storage
    wanted = splits.parse_splits(split_sizes)
    _check_ranges(shard_mb, check, max_rejected_fraction)
    images_dir, output_dir = filesystem.absolute(images_dir), filesystem.absolute(output_dir)
    annotations, captions = (path and filesystem.absolute(path) for path in (annotations, captions))
    places = {"images_dir": images_dir, "output_dir": output_dir, "annotations": annotations, "captions": captions}
    for name, path in places.items():
        if path:
            filesystem.check(path, f"--{name}")
    arguments.update(places)
    folders = JobFolders(output_dir)
    _check_place(images_dir, output_dir)
    # Reject mismatched arguments now; mismatched input is found below, after reading half a gigabyte of annotations.
    resume.find({"arguments": arguments, "input": {}}, folders, overwrite)

    listing = list_pictures(images_dir)
    known = _read_annotations(annotations, captions)
    job = {"arguments": arguments, "input": {"images_dir": listing.describe(), **known.digests}}
    state = resume.find(job, folders, overwrite)
    if state.finished:
        _LOG.info("%s: finished already, with these arguments; --overwrite makes it again", output_dir)
        return state.finished
    used = sum(len(ranks) for ranks in splits.cut_splits(wanted, len(listing.names)).values())
    missing = [
        shards.reject(name, "missing", "named by the annotations, not in --images_dir")
        for name in missing_pictures(known, listing.names)
    ]
    _tell_plan(listing.names, listing.hidden, used, known)

    try:
        resume.begin(job, folders, state)
        # If too many images are missing, fail now rather than after reading all the others.
        _refuse_rejects(missing, used + len(missing), max_rejected_fraction, folders)
        plans = plan_shards(listing, known, wanted, images_dir, shard_mb * _MB, seed, check)
        plan_paths = list(
            filesystem.map_files(functools.partial(write_plan, directory=folders.plan), plans, output_dir)
        )
        categories = [{"id": key, "name": name} for key, name in sorted(known.categories.items())]
        flat_boxes = known.flat_boxes
        total_bytes = int(listing.sizes.sum()) * used // len(listing.names)
        del known, listing  # possibly a million images' annotations, now on disk

        with WatchedProgress(folders.written, total_bytes, desc="shards", unit="B", unit_scale=True):
            pipeline.run(plan_paths, folders, runner, options)

        manifests = list(filesystem.map_files(filesystem.read_json, map(folders.manifest_of, plan_paths), output_dir))
        rejected = missing + [line for manifest in manifests for line in manifest["rejected"]]
        _refuse_rejects(rejected, used + len(missing), max_rejected_fraction, folders)
        _check_sizes(manifests, output_dir)
        info = {
            "schema_version": schema.SCHEMA_VERSION,
            "splits": {split: _split_info(split, manifests) for split in wanted},
            "rejected": {"images": len(rejected), "by_reason": _by_reason(rejected)},
            "boxes_without_area": flat_boxes,
            "categories": categories,
            "features": {key: feature.kind for key, feature in schema.FEATURES.items()},
            **job,
        }
        path = schema.dataset_path(output_dir, schema.DATASET_INFO)
        filesystem.write_json(path, info, scratch=folders.unfinished)
        filesystem.delete_tree(folders.unfinished)
    except UserError:
        raise
    except Exception as error:
        again = "finished shards are kept: run the same command again"
        if "No space left on device" in str(error):
            raise UserError(f"--output_dir={output_dir}: no space left on the disk; make room, {again}") from None
        if isinstance(error, OSError):
            raise UserError(f"--output_dir={output_dir}: cannot be written: {error}; {again}") from None
        raise
    _tell_end(info, output_dir, time.monotonic() - started)
    return info


def _check_ranges(shard_mb: float, check: str, max_rejected_fraction: float) -> None:
    if shard_mb <= 0:
        raise UserError(f"--shard_mb={shard_mb}: must be more than 0")
    if check not in (DECODE, HEADER):
        raise UserError(f"--check={check}: must be {DECODE} or {HEADER}")
    if not 0 <= max_rejected_fraction <= 1:
        raise UserError(f"--max_rejected_fraction={max_rejected_fraction}: must lie between 0 and 1")


def _check_place(images_dir: str, output_dir: str) -> None:
    if filesystem.join(output_dir, "").startswith(filesystem.join(images_dir, "")):
        raise UserError(
            f"--output_dir={output_dir}: lies within --images_dir, where shards would be read as pictures; "
            "choose a folder beside it"
        )


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
    """Writes rejected.jsonl; above the limit, deletes everything else of the job and raises UserError."""
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
    """Raises UserError unless every shard has its full size; called before dataset_info.json is written."""
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

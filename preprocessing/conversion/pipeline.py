"""The Beam job: takes the paths of shard plans and publishes the shards.

    plan paths, reshuffled ─ StageShard ─┬─ manifest ───────────────────────────┐
                                         └─ (SHA-256, picture) ─ GroupByKey     ├─ CoGroupByKey ─ PublishShard
                                             └─ all but the first, by shard ────┘

Only paths, manifests and checksums pass between workers, never images. `beam.io.WriteToTFRecord`, by contrast, sends
every record through a GroupByKey, for which the local runner holds the whole dataset in memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from common.beam import runner as beam_runner
from common.storage import filesystem
from preprocessing.conversion import plan, shards
from preprocessing.conversion.shards import Duplicate, JobFolders, StagedPicture

# Identical images fall into the same bucket. One element per image would cost the runner more than the comparison
# itself; with this many buckets, one still takes only about 40 MB for ten million images.
_BUCKETS = 64


class StageShard(filesystem.FileDoFn):
    """(shard number, path of its plan) -> (shard number, manifest, its StagedPictures by bucket of SHA-256)."""

    def __init__(self, folders: JobFolders, options: PipelineOptions) -> None:
        super().__init__(options)
        self._folders = folders

    def process(self, element: tuple[int, str]) -> Iterator[tuple[int, Any, Any]]:
        number, path = element
        manifest, pictures = shards.stage_shard(plan.read_plan(path), self._folders)
        buckets = defaultdict(list)
        for picture in pictures:
            # A plain tuple, because Beam would look for a row schema in a NamedTuple.
            buckets[int(picture.sha256[:2], 16) % _BUCKETS].append(tuple(picture))
        yield number, manifest, dict(buckets)


class PublishShard(filesystem.FileDoFn):
    """(shard number, its manifest and duplicates) -> nothing; publishes the shard."""

    def __init__(self, folders: JobFolders, options: PipelineOptions) -> None:
        super().__init__(options)
        self._folders = folders

    def process(self, element: tuple[int, dict[str, Iterable[Any]]]) -> None:
        _, found = element
        (manifest,) = found["manifest"]
        duplicates = sorted(Duplicate(*duplicate) for duplicate in found["duplicates"])
        shards.publish_shard(manifest, duplicates, self._folders)


def manifest_of(staged: tuple[int, Any, Any]) -> tuple[int, Any]:
    """Returns (shard number, manifest)."""
    return staged[:2]


def pictures_by_bucket(staged: tuple[int, Any, Any]) -> Iterator[tuple[int, tuple]]:
    """Yields (bucket, (shard number, the shard's StagedPictures in this bucket))."""
    number, _, buckets = staged
    for bucket, pictures in buckets.items():
        yield bucket, (number, pictures)


def later_copies(element: tuple[int, Iterable[tuple]]) -> Iterator[tuple[int, tuple]]:
    """Yields (shard number, Duplicate) for every image in a bucket that repeats an earlier one in plan order."""
    _, parts = element
    # Sorted by SHA-256, then rank.
    found = sorted((StagedPicture(*picture), number) for number, pictures in parts for picture in pictures)
    original = None
    for picture, number in found:
        if original is None or picture.sha256 != original.sha256:
            original = picture
        else:
            yield number, tuple(Duplicate(picture.record, picture.name, original.name))


def build(pipeline: beam.Pipeline, plan_paths: Sequence[str], folders: JobFolders, options: PipelineOptions) -> None:
    """Adds the job to a pipeline.

    To work on every runner, all DoFns can be pickled; each DoFn has one output and the graph has one leaf, because
    DaskRunner drops tags and computes only the last leaf; and keys are numbers, because Dask groups by Python's hash,
    which for text differs between processes.

    Args:
      pipeline: the pipeline to extend.
      plan_paths: paths of plans written by `plan.write_plan`.
      folders: the job's folders.
      options: Beam's options.
    """
    staged = (
        pipeline
        # Without a reshuffle, one worker would get all shards.
        | "Plans" >> beam.Create(list(enumerate(plan_paths)), reshuffle=True)
        | "Stage" >> beam.ParDo(StageShard(folders, options))
    )
    manifests = staged | "Manifests" >> beam.Map(manifest_of)
    duplicates = (
        staged
        | "Pictures" >> beam.FlatMap(pictures_by_bucket)
        | "SameBytes" >> beam.GroupByKey()
        | "LaterCopies" >> beam.FlatMap(later_copies)
    )
    (
        {"manifest": manifests, "duplicates": duplicates}
        | "ByShard" >> beam.CoGroupByKey()
        | "Publish" >> beam.ParDo(PublishShard(folders, options))
    )


def run(plan_paths: Sequence[str], folders: JobFolders, runner: PipelineRunner, options: PipelineOptions) -> None:
    """Stages and publishes every shard, and waits until the job ends.

    Args:
      plan_paths: paths of plans written by `plan.write_plan`.
      folders: the job's folders.
      runner: the Beam runner.
      options: Beam's options.
    """
    with beam_runner.pipeline(runner, options) as pipeline:
        build(pipeline, plan_paths, folders, options)

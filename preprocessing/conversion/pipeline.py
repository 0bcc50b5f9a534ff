"""The Beam job: paths of shard plans in, published shards out.

    plan paths, reshuffled ─ StageShard ─┬─ manifest ───────────────────────────┐
                                         └─ (SHA-256, picture) ─ GroupByKey     ├─ CoGroupByKey ─ PublishShard
                                             └─ all but the first, by shard ────┘

What travels between workers is a path, a manifest or a checksum, never a picture: `beam.io.WriteToTFRecord`
sends every record through a GroupByKey, which on the local runner holds the whole data set in memory.
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

# Equal pictures meet in a bucket. An element a picture would cost the runner more than the search for equals does;
# with ten million pictures a bucket of this many still takes only some 40 MB.
_BUCKETS = 64


class StageShard(filesystem.FileDoFn):
    """(number of a shard, path of its plan) -> (number, manifest, its StagedPictures by bucket of SHA-256)."""

    def __init__(self, folders: JobFolders, options: PipelineOptions) -> None:
        super().__init__(options)
        self._folders = folders

    def process(self, element: tuple[int, str]) -> Iterator[tuple[int, Any, Any]]:
        number, path = element
        manifest, pictures = shards.stage_shard(plan.read_plan(path), self._folders)
        buckets = defaultdict(list)
        for picture in pictures:
            # A plain tuple: NamedTuples make Beam look for a row schema.
            buckets[int(picture.sha256[:2], 16) % _BUCKETS].append(tuple(picture))
        yield number, manifest, dict(buckets)


class PublishShard(filesystem.FileDoFn):
    """(number of a shard, its manifest and duplicates) -> nothing; the shard is in place."""

    def __init__(self, folders: JobFolders, options: PipelineOptions) -> None:
        super().__init__(options)
        self._folders = folders

    def process(self, element: tuple[int, dict[str, Iterable[Any]]]) -> None:
        _, found = element
        (manifest,) = found["manifest"]
        duplicates = sorted(Duplicate(*duplicate) for duplicate in found["duplicates"])
        shards.publish_shard(manifest, duplicates, self._folders)


def manifest_of(staged: tuple[int, Any, Any]) -> tuple[int, Any]:
    """(number of the shard, its manifest)."""
    return staged[:2]


def pictures_by_bucket(staged: tuple[int, Any, Any]) -> Iterator[tuple[int, tuple]]:
    """(bucket, (number of the shard, its StagedPictures in this bucket))."""
    number, _, buckets = staged
    for bucket, pictures in buckets.items():
        yield bucket, (number, pictures)


def later_copies(element: tuple[int, Iterable[tuple]]) -> Iterator[tuple[int, tuple]]:
    """Of the pictures of one SHA-256 in a bucket, all but the first in plan order: (number of the shard, Duplicate)."""
    _, parts = element
    # By SHA-256, then rank.
    found = sorted((StagedPicture(*picture), number) for number, pictures in parts for picture in pictures)
    original = None
    for picture, number in found:
        if original is None or picture.sha256 != original.sha256:
            original = picture
        else:
            yield number, tuple(Duplicate(picture.record, picture.name, original.name))


def build(pipeline: beam.Pipeline, plan_paths: Sequence[str], folders: JobFolders, options: PipelineOptions) -> None:
    """Adds the job to a pipeline.

    What it holds to, so that every runner takes it: DoFns that pickle; one output a DoFn and one leaf, for DaskRunner
    drops tags and computes the last leaf alone; numbers as keys, for Dask groups by Python's hash, which is another in
    each process for text.

    Args:
      pipeline: where to.
      plan_paths: of the plans that `plan.write_plan` wrote.
      folders: the job's.
      options: Beam's.
    """
    staged = (
        pipeline
        # Reshuffled, or one worker would take all the shards.
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
    """Stages and publishes every shard and waits for the end; arguments as `build`, and a runner."""
    with beam_runner.pipeline(runner, options) as pipeline:
        build(pipeline, plan_paths, folders, options)

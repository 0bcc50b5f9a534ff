"""The Beam job: paths of shard plans in, published shards out.

    plan paths, reshuffled ─ StageShard ─┬─ manifests ──────────────────────────┐
                                         └─ (SHA-256, picture) ─ GroupByKey     ├─ CoGroupByKey ─ PublishShard
                                             └─ all but the first, by shard ────┘

What travels between workers is a path, a manifest or a checksum, never a picture: `beam.io.WriteToTFRecord`
sends every record through a GroupByKey, which on the local runner holds the whole data set in memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from preprocessing import plan, shards
from preprocessing.shards import Duplicate, JobFolders, StagedPicture

_PICTURES = "pictures"

# Equal pictures meet in a bucket. An element a picture would cost the runner more than the search for equals does;
# with ten million pictures a bucket of this many still takes only some 40 MB.
_BUCKETS = 64


class StageShard(beam.DoFn):
    """Path of a plan -> (shard, manifest), and tagged `pictures` (bucket of SHA-256, its StagedPictures)."""

    def __init__(self, folders: JobFolders) -> None:
        self._folders = folders

    def process(self, path: str) -> Iterator[Any]:
        manifest, pictures = shards.stage_shard(plan.read_plan(path), self._folders)
        yield manifest["file"], manifest
        buckets = defaultdict(list)
        for picture in pictures:
            # A plain tuple: NamedTuples make Beam look for a row schema.
            buckets[picture.sha256[0] % _BUCKETS].append(tuple(picture))
        for bucket in buckets.items():
            yield beam.pvalue.TaggedOutput(_PICTURES, bucket)


class PublishShard(beam.DoFn):
    """(shard, its manifest and duplicates) -> nothing; the shard is in place."""

    def __init__(self, folders: JobFolders) -> None:
        self._folders = folders

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> None:
        _, found = element
        (manifest,) = found["manifest"]
        duplicates = sorted(Duplicate(*duplicate) for duplicate in found["duplicates"])
        shards.publish_shard(manifest, duplicates, self._folders)


def later_copies(element: tuple[int, Iterable[list[tuple]]]) -> Iterator[tuple[str, tuple]]:
    """Of the pictures with one SHA-256 in a bucket, all but the first in plan order: (shard, Duplicate)."""
    _, parts = element
    pictures = sorted(StagedPicture(*picture) for part in parts for picture in part)  # by SHA-256, then rank
    original = None
    for picture in pictures:
        if original is None or picture.sha256 != original.sha256:
            original = picture
        else:
            yield picture.shard, tuple(Duplicate(picture.record, picture.name, original.name))


def run(plan_paths: list[str], folders: JobFolders, runner: PipelineRunner, options: PipelineOptions) -> None:
    """Stages and publishes every shard and waits for the end.

    Args:
      plan_paths: of the plans that `plan.write_plan` wrote.
      folders: the job's.
      runner: as `beam_runner.create` made it from `options`.
      options: Beam's.
    """
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        staged = (
            pipeline
            # Reshuffled, or one worker would take all the shards.
            | "Plans" >> beam.Create(plan_paths, reshuffle=True)
            | "Stage" >> beam.ParDo(StageShard(folders)).with_outputs(_PICTURES, main="manifests")
        )
        duplicates = staged[_PICTURES] | "SameBytes" >> beam.GroupByKey() | "LaterCopies" >> beam.FlatMap(later_copies)
        (
            {"manifest": staged["manifests"], "duplicates": duplicates}
            | "ByShard" >> beam.CoGroupByKey()
            | "Publish" >> beam.ParDo(PublishShard(folders))
        )

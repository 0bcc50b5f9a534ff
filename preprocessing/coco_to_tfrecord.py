"""Converts a COCO folder, or any folder of images, to sharded TFRecords with Apache Beam.

In:

    coco/
      train2017/                         --images_dir, read recursively
        000000000009.jpg                 8-bit RGB or gray JPEG, PNG or BMP, or a single-frame GIF
      annotations/
        instances_train2017.json         --annotations, optional
        captions_train2017.json          --captions, optional

Out:

    OUTPUT_DIR/
      dataset_info.json                  counts, bytes and checksums per split and shard; written last
      rejected.jsonl                     {"filename": …, "reason": …, "detail": …} per rejected image
      train-00000-of-00002.tfrecord
      train-00001-of-00002.tfrecord
      test-00000-of-00001.tfrecord
      unfinished-job/                    exists only during the job: plans, staged shards and their manifests

Each record is a tf.train.Example with these features (*: any number of values; otherwise exactly one):

    image/encoded                 bytes    the file's bytes, unchanged
    image/format                  bytes    jpeg, png, bmp or gif
    image/height, image/width     int64    pixels, of the stored raster
    image/filename                bytes    path relative to --images_dir
    image/source_id               bytes    COCO's image id, else the file name
    image/key/sha256              bytes    SHA-256 of image/encoded, hexadecimal
    image/object/bbox/xmin, xmax  float *  0..1
    image/object/bbox/ymin, ymax  float *  0..1
    image/object/class/label      int64 *  COCO's category id
    image/object/class/text       bytes *  the category's name
    image/object/is_crowd         int64 *  0 or 1
    image/object/area             float *  square pixels
    image/caption                 bytes *  sentences

Command:

    python -m preprocessing.coco_to_tfrecord \
        --images_dir=coco/train2017 \
        --annotations=coco/annotations/instances_train2017.json \
        --captions=coco/annotations/captions_train2017.json \
        --output_dir=tfrecords --splits=train=0.9,val=0.1 --shard_mb=128 --seed=0 \
        --direct_running_mode=multi_processing --direct_num_workers=4

Flags that --help does not list are passed to Beam, such as --runner=DataflowRunner. Paths may be URLs (s3://,
gs://) if the matching Beam extra is installed. See docs/scale.md for both.

To resume a killed job, run the same command again. It keeps the complete shards, and the dataset is byte-identical
to one from an uninterrupted job. The runner and the number of workers may differ; with other arguments or input
images the command refuses to run, unless --overwrite tells it to start over.

Each rejected image is recorded with a reason (see `checks.REASONS`). If more than --max_rejected_fraction are
rejected, the job fails and leaves only rejected.jsonl. An image's split and shard depend only on its name and
--seed, so the shards are byte-identical for any number of workers. Of several identical files, the first is kept.
Counts in --splits include images that are later rejected. Images missing from the annotations are kept, without
objects.
"""

from collections.abc import Sequence
from typing import Optional

from absl import flags

from common import command_line
from preprocessing.conversion import convert

_IMAGES_DIR = flags.DEFINE_string("images_dir", None, "Folder or URL of the pictures.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder or URL for the dataset.", required=True)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO instances JSON; optional.")
_CAPTIONS = flags.DEFINE_string("captions", None, "COCO captions JSON; optional.")
_SPLITS = flags.DEFINE_string(
    "splits", "train=1.0", "Counts (train=4200,test=800) or fractions (train=0.9,val=0.1), in this order."
)
_SHARD_MB = flags.DEFINE_float("shard_mb", 128, "Aimed-at size of a shard, in 10^6 bytes.")
_SEED = flags.DEFINE_integer("seed", 0, "Decides which picture goes into which split and shard.")
_CHECK = flags.DEFINE_enum(
    "check", "decode", ["decode", "header"], "Decode every picture, or read headers and end markers only."
)
_MAX_REJECTED_FRACTION = flags.DEFINE_float(
    "max_rejected_fraction", 0.01, "More rejected pictures than this, 0..1, end the job."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a dataset, or another unfinished job, in --output_dir.")


def main(argv: Sequence[str]) -> Optional[int]:
    """Runs the conversion with the values of the flags."""
    convert.convert(
        images_dir=_IMAGES_DIR.value,
        output_dir=_OUTPUT_DIR.value,
        split_sizes=_SPLITS.value,
        annotations=_ANNOTATIONS.value,
        captions=_CAPTIONS.value,
        shard_mb=_SHARD_MB.value,
        seed=_SEED.value,
        check=_CHECK.value,
        max_rejected_fraction=_MAX_REJECTED_FRACTION.value,
        overwrite=_OVERWRITE.value,
        beam_options=argv[1:],
    )


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main, pass_unknown_flags=True)


if __name__ == "__main__":
    run()

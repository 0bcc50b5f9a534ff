"""Downloads COCO 2017 from its official server, verifies it and unpacks it.

    python -m preprocessing.download --dataset=coco-val2017,coco-annotations2017 --dest=coco

In: --dataset, one or more of

    coco-train2017         zips/train2017.zip                          19.3 GB, 118,287 photographs
    coco-val2017           zips/val2017.zip                            816 MB, 5,000 photographs
    coco-annotations2017   annotations/annotations_trainval2017.zip    253 MB, for both

Out, in the layout that preprocessing.coco_to_tfrecord expects:

    DEST/
      train2017/           000000000009.jpg …
      val2017/             000000000139.jpg …
      annotations/         {instances,captions,person_keypoints}_{train,val}2017.json

Each folder appears only once it is complete. Until then `unfinished-FOLDER` beside it holds the partial download; after
any interruption, the same command resumes from there. Folders that already exist are left alone.

Free disk space for the zips and the unpacked files is checked first. Every zip's SHA-256 is compared with the one in
`archives.COCO`, so you need not trust the server, the network or a mirror. A zip is deleted once it is unpacked;
--keep_zip leaves it in DEST. A zip that is already in DEST is used, and kept.

COCO's server supports HTTP only. The same files over HTTPS:

    --base_url=https://s3.amazonaws.com/images.cocodataset.org

A download begun on one server resumes on another if both report the same version of the file (ETag); otherwise it
starts over. Proxies are read from http_proxy and https_proxy.
"""

from collections.abc import Sequence

from absl import flags

from common import command_line, entry_flags
from common.command_line import UserError
from preprocessing.downloading import archives

_FLAGS = flags.FlagValues()
_DATASET = flags.DEFINE_list("dataset", None, f"Of {', '.join(archives.COCO)}.", required=True, flag_values=_FLAGS)
_DEST = flags.DEFINE_string("dest", None, "Local folder to make the folders in.", required=True, flag_values=_FLAGS)
_BASE_URL = flags.DEFINE_string(
    "base_url", archives.COCO_URL, "A mirror: the URL that zips/ and annotations/ are below.", flag_values=_FLAGS
)
_KEEP_ZIP = flags.DEFINE_bool("keep_zip", False, "Leave the zips in --dest.", flag_values=_FLAGS)


def main(argv: Sequence[str]) -> None:
    """Downloads what the flags name."""
    command_line.refuse_positional(argv)
    for name in _DATASET.value:
        if name not in archives.COCO:
            raise UserError(f"--dataset={name}: not known; there are {', '.join(archives.COCO)}")
    wanted = [archives.COCO[name] for name in _DATASET.value]
    archives.download(wanted, _DEST.value, _BASE_URL.value, _KEEP_ZIP.value)


def run() -> None:
    """Entry point of the command."""
    entry_flags.adopt(_FLAGS)
    command_line.run(main)


if __name__ == "__main__":
    run()

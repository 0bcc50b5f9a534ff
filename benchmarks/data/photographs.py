"""The photographs that benchmarks measure on."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from absl import flags
from tqdm import tqdm

from common import child_process
from common.command_line import UserError

_PLAIN_LOOP = """
import io, sys
from PIL import Image
for path in open(sys.argv[1]).read().splitlines():
    with open(path, "rb") as file:
        Image.open(io.BytesIO(file.read())).load()
"""

_COCO = "coco/val2017"
_DOWNLOAD = "python -m preprocessing.download --dataset=coco-val2017 --dest=coco"


def define_photos_flag(flag_values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """Defines `--photos`."""
    return flags.DEFINE_string("photos", _COCO, f"Photographs: {_DOWNLOAD}", flag_values=flag_values)


def coco_photographs(folder: str) -> list[Path]:
    """Returns the photographs in the folder from `--photos`, sorted.

    Raises:
      UserError: there are none; the message names the command that downloads some.
    """
    found = [path for path in sorted(Path(folder).glob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise UserError(f"--photos={folder}: no photographs there; {_DOWNLOAD} brings 5,000 (0.8 GB)")
    return found


def folder_of_photographs(asked_for: str | None, scratch: Path) -> Path:
    """Returns a folder of JPEGs: the requested one, else coco/val2017, else photographs from installed packages.

    Args:
      asked_for: the folder that the user named, or None.
      scratch: a folder to write the photographs from installed packages into.

    Raises:
      UserError: there are no JPEGs in the folder.
    """
    folder = Path(asked_for or _COCO)
    if not asked_for and not folder.is_dir():
        # Imported here because `benchmarks.judge` uses this module and must share no code with what it judges.
        from preprocessing import sample_photos

        print("no COCO photographs: those of scikit-image and scikit-learn stand in")
        sample_photos.write_coco_folder(str(scratch / "photos"))
        folder = scratch / "photos" / "images"
    if not jpegs(folder):
        raise UserError(f"--images={folder}: no JPEGs there")
    return folder


def jpegs(folder: Path) -> list[Path]:
    """Returns the JPEGs in a folder, sorted; none if the folder does not exist."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def lay_out_copies(asked_for: str | None, count: int, folder: Path) -> None:
    """Fills a new folder with many copies of photographs, as JPEGs.

    A comment segment in each copy makes its bytes, and so its SHA-256, unique.

    Args:
      asked_for: the folder of photographs that the user named, or None, as in `folder_of_photographs`.
      count: number of files to write.
      folder: the folder to create.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sources = [path.read_bytes() for path in jpegs(folder_of_photographs(asked_for, Path(scratch)))]
    folder.mkdir()
    for index in tqdm(range(count), desc=f"laying out {count} pictures", leave=False):
        data = sources[index % len(sources)]
        text = f"copy {index}".encode()
        comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        (folder / f"{index:06d}.jpg").write_bytes(data[:2] + comment + data[2:])


def decode_plainly(images: Path, scratch: Path, processes: int) -> None:
    """Only reads and decodes all files of a folder, in a plain loop in each of several processes.

    Args:
      images: the folder of images.
      scratch: a folder for the lists of files.
      processes: number of processes that share the work.
    """
    paths = sorted(str(path) for path in images.iterdir())
    loops = []
    for index in range(processes):
        listed = scratch / f"plain-{index}.txt"
        listed.write_text("\n".join(paths[index::processes]))
        loops.append(child_process.start([sys.executable, "-c", _PLAIN_LOOP, str(listed)]))
    for loop in loops:
        if loop.wait():
            raise RuntimeError("the plain loop failed")

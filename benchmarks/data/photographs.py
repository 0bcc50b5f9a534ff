"""The photographs a benchmark measures on."""

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
    """The photographs that `--photos` names, in order.

    Raises:
      UserError: there are none; it says which command brings some.
    """
    found = [path for path in sorted(Path(folder).glob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise UserError(f"--photos={folder}: no photographs there; {_DOWNLOAD} brings 5,000 (0.8 GB)")
    return found


def folder_of_photographs(asked_for: str | None, scratch: Path) -> Path:
    """A folder of JPEGs: the one asked for, else coco/val2017, else those of installed packages.

    Args:
      asked_for: what the user named, if anything.
      scratch: a folder for the last of the three.

    Raises:
      UserError: there are no JPEGs.
    """
    folder = Path(asked_for or _COCO)
    if not asked_for and not folder.is_dir():
        # Here, since `benchmarks.judge` reads photographs too, and is to share no code with what it judges.
        from preprocessing import sample_photos

        print("no COCO photographs: those of scikit-image and scikit-learn stand in")
        sample_photos.write_coco_folder(str(scratch / "photos"))
        folder = scratch / "photos" / "images"
    if not jpegs(folder):
        raise UserError(f"--images={folder}: no JPEGs there")
    return folder


def jpegs(folder: Path) -> list[Path]:
    """The JPEGs of a folder, in order; none where there is no folder."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def lay_out_copies(asked_for: str | None, count: int, folder: Path) -> None:
    """Fills a new folder with JPEGs, each photograph many times over.

    A comment segment in each copy makes its bytes, and so its SHA-256, differ.

    Args:
      asked_for: as in `folder_of_photographs`.
      count: how many.
      folder: where.
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
    """Reads and decodes all files of a folder, by loops in so many processes, and does nothing else.

    Args:
      images: the folder.
      scratch: another, for the lists of files.
      processes: how many share the work.
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

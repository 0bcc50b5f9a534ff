"""Arranges photographs from installed packages as a COCO folder, for a demo and tests without downloads.

In: scikit-image and scikit-learn (extra `[photos]`), which include a few photographs under free licenses.

Out: DIR/
    images/NAME.jpg               JPEGs: the original file if it is a JPEG, else re-encoded at quality 95
    annotations/instances.json    in COCO's layout: sizes, licenses and credits, but no objects
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from common.command_line import UserError

_SKIMAGE, _SKLEARN = "skimage.data", "sklearn.datasets.images"
_CC0, _PUBLIC_DOMAIN, _CC_BY = "CC0 1.0", "public domain", "CC BY 2.0"


@dataclasses.dataclass(frozen=True)
class SamplePhoto:
    """A photograph inside an installed package."""

    package: str
    file: str
    license: str
    credit: str


PHOTOS = (
    SamplePhoto(_SKIMAGE, "astronaut.png", _PUBLIC_DOMAIN, "NASA"),
    SamplePhoto(_SKIMAGE, "brick.png", _CC0, "CC0Textures"),
    SamplePhoto(_SKIMAGE, "camera.png", _CC0, "Lav Varshney"),
    SamplePhoto(_SKIMAGE, "chelsea.png", _CC0, "Stéfan van der Walt"),
    SamplePhoto(_SKIMAGE, "clock_motion.png", _PUBLIC_DOMAIN, "Stéfan van der Walt"),
    SamplePhoto(_SKIMAGE, "coffee.png", _CC0, "Rachel Michetti"),
    SamplePhoto(_SKIMAGE, "coins.png", _PUBLIC_DOMAIN, "Brooklyn Museum"),
    SamplePhoto(_SKIMAGE, "grass.png", _CC0, "linolafett"),
    SamplePhoto(_SKIMAGE, "gravel.png", _CC0, "CC0Textures"),
    SamplePhoto(_SKIMAGE, "hubble_deep_field.jpg", _PUBLIC_DOMAIN, "NASA"),
    SamplePhoto(_SKIMAGE, "retina.jpg", _CC0, "Mikael Häggström"),
    SamplePhoto(_SKIMAGE, "rocket.jpg", _PUBLIC_DOMAIN, "SpaceX"),
    SamplePhoto(_SKLEARN, "china.jpg", _CC_BY, "danielbuechele, flickr.com"),
    SamplePhoto(_SKLEARN, "flower.jpg", _CC_BY, "vultilion, flickr.com"),
)


def write_coco_folder(output_dir: str) -> int:
    """Writes the photographs as a COCO folder, unless the folder already exists.

    Args:
      output_dir: the folder to create.

    Returns:
      The number of photographs.

    Raises:
      UserError: the packages are not installed.
    """
    if Path(output_dir).exists():
        return len(PHOTOS)
    licenses = sorted({photo.license for photo in PHOTOS})
    coco = {
        "info": {"description": "Photographs shipped with scikit-image and scikit-learn"},
        "licenses": [{"id": number, "name": name} for number, name in enumerate(licenses, start=1)],
        "images": [],
        "annotations": [],
        "categories": [],
    }
    parent = Path(output_dir).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        folder = Path(temporary, "coco")
        (folder / "images").mkdir(parents=True)
        (folder / "annotations").mkdir()
        for number, photo in enumerate(PHOTOS, start=1):
            name = Path(photo.file).stem + ".jpg"
            try:
                source = importlib.resources.files(photo.package) / photo.file
            except ModuleNotFoundError:
                raise UserError(
                    "the sample photographs are not installed; pip install 'cleanplate[photos]', or give a COCO "
                    "folder of your own"
                ) from None
            with importlib.resources.as_file(source) as path, Image.open(path) as image:
                if image.format == "JPEG":
                    shutil.copyfile(path, folder / "images" / name)
                else:
                    image.save(folder / "images" / name, quality=95, subsampling=0)
                coco["images"].append(
                    {
                        "id": number,
                        "file_name": name,
                        "width": image.width,
                        "height": image.height,
                        "license": 1 + licenses.index(photo.license),
                        "credit": photo.credit,
                    }
                )
        (folder / "annotations" / "instances.json").write_text(json.dumps(coco, indent=1), encoding="utf-8")
        os.rename(folder, output_dir)
    return len(PHOTOS)

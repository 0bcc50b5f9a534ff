"""Reads COCO's JSON files, of any size, in one pass.

    instances_train2017.json            captions_train2017.json
      images:                             images:
        {id, file_name, width, height}      {id, file_name, width, height}
      annotations:                        annotations:
        {image_id, category_id,             {image_id, caption}
         bbox [x, y, w, h] in pixels,
         area, iscrowd, …}
      categories:
        {id, name}

The file is streamed through the parser, and only the numbers above are kept, in flat arrays: the 450 MB of
instances_train2017.json, mostly segmentation polygons, become 46 MB. Captions (half a million in COCO) are kept whole.
"""

import contextlib
import hashlib
from array import array
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import ijson
import numpy as np
from tqdm import tqdm

from common.command_line import UserError
from common.storage import filesystem

_CHUNK_BYTES = 1 << 20

_REMEDY = "expected the layout of instances_train2017.json, with images, annotations and categories"

_SINGULAR = {"images": "image", "categories": "category"}


class Image(NamedTuple):
    """An entry of "images": `size` is (width, height) in pixels, None if the file does not give it."""

    id: int
    size: Optional[tuple[int, int]]


class Objects(NamedTuple):
    """The objects in one image, in the file's order."""

    boxes: list[list[float]]  # [x, y, width, height] in pixels
    categories: list[int]
    areas: list[float]  # square pixels
    crowds: list[int]


class Annotations:
    """The content of the JSON files, indexed by an image's file name.

    Attributes:
      images: file name -> Image, from either file.
      categories: COCO's category id -> name.
      flat_boxes: number of boxes with zero width or height; they hold no object and are left out.
      digests: `annotations` and `captions`, if read -> `bytes` and `sha256` of the file.
    """

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.categories: dict[int, str] = {}
        self.flat_boxes = 0
        self.digests: dict[str, dict[str, Any]] = {}
        self._captions: dict[int, list[str]] = {}
        # One row per object, in the file's order. `_rows` is the order that sorts them by image id, `_owners` the
        # sorted image ids.
        self._boxes = np.empty((0, 4))
        self._labels = self._crowds = self._owners = self._rows = np.empty(0, np.int64)
        self._areas = np.empty(0)

    def objects(self, name: str) -> Objects:
        """Returns the objects of the image `name`; none if it is not annotated."""
        image = self.images.get(name)
        begin, end = (0, 0) if image is None else np.searchsorted(self._owners, [image.id, image.id + 1])
        rows = self._rows[begin:end]
        return Objects(
            self._boxes[rows].tolist(),
            self._labels[rows].tolist(),
            self._areas[rows].tolist(),
            self._crowds[rows].tolist(),
        )

    def captions(self, name: str) -> list[str]:
        """Returns the captions of the image `name`, in the file's order."""
        image = self.images.get(name)
        return [] if image is None else self._captions.get(image.id, [])

    def read_instances(self, path: str) -> None:
        """Adds an instances file.

        Raises:
          UserError: the file cannot be read or is not in COCO's format.
        """
        owners, labels, crowds = array("q"), array("q"), array("q")
        boxes, areas = array("d"), array("d")

        def add(annotation: dict[str, Any]) -> None:
            if "bbox" not in annotation:
                hint = "; captions go to --captions" if "caption" in annotation else ""
                raise UserError(f'{path}: annotation {annotation.get("id")} has no "bbox"{hint}')
            x, y, width, height = map(float, annotation["bbox"])
            if width <= 0 or height <= 0:
                self.flat_boxes += 1
                return
            owners.append(int(annotation["image_id"]))
            labels.append(int(annotation["category_id"]))
            crowds.append(int(annotation.get("iscrowd", 0)))
            areas.append(float(annotation.get("area", width * height)))
            boxes.extend((x, y, width, height))

        def add_category(category: dict[str, Any]) -> None:
            self.categories[int(category["id"])] = str(category["name"])

        ids = self._read("annotations", path, add, add_category)
        _refuse_strangers(path, "images", np.asarray(owners, np.int64), ids)
        _refuse_strangers(path, "categories", np.asarray(labels, np.int64), self.categories)
        self._rows = np.argsort(owners, kind="stable")
        self._owners = np.asarray(owners, np.int64)[self._rows]
        self._labels, self._crowds = np.asarray(labels, np.int64), np.asarray(crowds, np.int64)
        self._areas, self._boxes = np.asarray(areas), np.asarray(boxes).reshape(-1, 4)

    def read_captions(self, path: str) -> None:
        """Adds a captions file.

        Raises:
          UserError: the file cannot be read or is not in COCO's format.
        """

        def add(annotation: dict[str, Any]) -> None:
            if "caption" not in annotation:
                hint = "; instances go to --annotations" if "bbox" in annotation else ""
                raise UserError(f'{path}: annotation {annotation.get("id")} has no "caption"{hint}')
            self._captions.setdefault(int(annotation["image_id"]), []).append(str(annotation["caption"]))

        ids = self._read("captions", path, add)
        _refuse_strangers(path, "images", np.fromiter(self._captions, np.int64), ids)

    def _read(
        self,
        kind: str,
        path: str,
        add_annotation: Callable[[dict[str, Any]], None],
        add_category: Callable[[dict[str, Any]], None] = lambda category: None,
    ) -> set[int]:
        """Streams a file through the callbacks, adds its images, and returns their ids."""
        ids, read, digest = set(), 0, hashlib.sha256()

        def add_image(entry: dict[str, Any]) -> None:
            name, identifier = str(entry["file_name"]), int(entry["id"])
            size = (int(entry["width"]), int(entry["height"])) if "width" in entry and "height" in entry else None
            known = self.images.setdefault(name, Image(identifier, size))
            if known.id != identifier:
                raise UserError(f"{path}: {name} is image {identifier} here and image {known.id} elsewhere")
            ids.add(identifier)

        lists = {"images": add_image, "annotations": add_annotation, "categories": add_category}
        parsers = [
            ijson.items_coro(_called(callback), f"{name}.item", use_float=True) for name, callback in lists.items()
        ]
        try:
            for chunk in _chunks(path):
                read += len(chunk)
                digest.update(chunk)
                for parser in parsers:
                    parser.send(chunk)
            for parser in parsers:
                parser.close()
        except ijson.JSONError as error:
            raise UserError(f"{path}: not JSON, or cut off: {str(error).splitlines()[0].strip()}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"an entry without {error}" if isinstance(error, KeyError) else f"an entry that is wrong: {error}"
            raise UserError(f"{path}: not a COCO file: {what}; {_REMEDY}") from None
        self.digests[kind] = {"bytes": read, "sha256": digest.hexdigest()}
        if not ids:
            raise UserError(f'{path}: not a COCO file: no "images" list, or an empty one; {_REMEDY}')
        return ids


def _called(callback: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Returns a target for ijson's push parser that calls `callback` with each item."""

    def target() -> Iterator[None]:
        with contextlib.suppress(GeneratorExit):
            while True:
                callback((yield))

    generator = target()
    next(generator)
    return generator


def _chunks(path: str) -> Iterator[bytes]:
    try:
        bar = tqdm(
            total=filesystem.file_size(path), desc="annotations", unit="B", unit_scale=True, delay=2, leave=False
        )
        with filesystem.open_for_reading(path) as file, bar:
            while True:
                chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk
                bar.update(len(chunk))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _refuse_strangers(path: str, where: str, used: np.ndarray, known: Any) -> None:
    strangers = used[~np.isin(used, np.fromiter(known, np.int64))]
    if strangers.size:
        raise UserError(
            f"{path}: {strangers.size} annotations, the first of {_SINGULAR[where]} {strangers[0]}, "
            f'are of none that its "{where}" list holds; take images and annotations from one file'
        )

"""Finds, loads and runs a SavedModel in this process, without a server.

    from serving.restoring.local import LoadedModel, find_version

    model = LoadedModel(find_version("runs/demo/export"))
    restored_png = model.restore_bytes(Path("photo.jpg").read_bytes())

TensorFlow reads only local files. A version in object storage is first downloaded to a temporary folder, which is
deleted after loading.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from common import versions
from common.command_line import UserError
from common.storage import filesystem
from serving.restoring.answer import Answer
from serving.restoring.refusal import Refused, reason

_FILE = "saved_model.pb"


def find_version(model: str) -> str:
    """Finds the version that a user means.

    Args:
      model: folder or URL of an export (EXPORT_DIR of `serving.export`), which means its newest version, or of one
        version.

    Returns:
      The version's URL or absolute folder.

    Raises:
      UserError: there is no version.
    """
    folder = filesystem.absolute(model).rstrip("/")
    if "://" not in folder:
        if os.path.isfile(os.path.join(folder, _FILE)):
            return folder
        found = {number: os.fspath(path) for number, path in versions.list_versions(folder).items()}
        exists = os.path.isdir(folder)
    else:
        names = [file.name for file in filesystem.list_files(folder)]
        if _FILE in names:
            return folder
        numbers = [name.split("/")[0] for name in names if re.fullmatch(rf"\d+/{_FILE}", name)]
        found = {int(number): filesystem.join(folder, number) for number in numbers}
        exists = bool(names)
    if not found:
        state = f"no version in it (expected {folder}/1/{_FILE})" if exists else "no such folder"
        raise UserError(f"--model={model}: {state}; name one that python -m serving.export or serving.key wrote")
    return found[max(found)]


class LoadedModel:
    """A loaded version; thread-safe."""

    def __init__(self, folder: str) -> None:
        """Loads a version, which takes seconds.

        Args:
          folder: the version's folder or URL.

        Raises:
          UserError: it does not load, or does not have our signature.
        """
        import tensorflow as tf  # imported here so that callers of `find_version` need not wait for TensorFlow

        try:
            with _local(folder) as path:
                # The loaded object owns the variables; the signature cannot run without it.
                self._loaded = tf.saved_model.load(path)
        except Exception as error:  # file systems and TensorFlow raise many types
            said = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"--model={folder}: does not load: {said}; export it again, or name another") from error
        self._signature = self._loaded.signatures.get("serving_default")
        if (
            self._signature is None
            or list(self._signature.structured_input_signature[1]) != ["image_bytes"]
            or "restored_bytes" not in self._signature.structured_outputs  # keyed exports have additional outputs
        ):
            raise UserError(
                f"--model={folder}: does not restore pictures; name one that python -m serving.export or serving.key "
                "wrote"
            )

    def restore_bytes(self, image_bytes: bytes) -> bytes:
        """Restores an image file, as `Restorer.restore_bytes` does through a server.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are ignored.

        Returns:
          A PNG of the same size: RGBA if the input has alpha, else RGB.

        Raises:
          Refused: the model rejects this image.
        """
        return self.ask(image_bytes).restored_bytes

    def ask(self, image_bytes: bytes) -> Answer:
        """Restores an image file and reports whether the model found its mark, as `Restorer.ask` does through a server.

        Args:
          image_bytes: a JPEG, PNG, BMP or GIF; its metadata and EXIF orientation are ignored.

        Returns:
          The answer; its `found` is None if the model does not report it.

        Raises:
          Refused: the model rejects this image.
        """
        import tensorflow as tf

        try:
            outputs = self._signature(image_bytes=tf.constant([image_bytes]))
        except tf.errors.OpError as error:
            raise Refused(reason(error.message)) from error
        found = bool(outputs["found"].numpy()[0]) if "found" in outputs else None
        return Answer(outputs["restored_bytes"].numpy()[0], found)


@contextlib.contextmanager
def _local(folder: str) -> Iterator[str]:
    """Yields a local path of a version, downloading it if necessary; valid only inside the `with` block."""
    if "://" not in folder:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="cleanplate-model-") as temporary:
        for file in filesystem.list_files(folder):
            target = pathlib.Path(temporary, file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with filesystem.open_for_reading(filesystem.join(folder, file.name)) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        yield temporary

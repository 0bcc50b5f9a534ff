"""The models a server has: watches their version folders, loads what is wanted, lets go of what is not.

Wanted are the newest versions of each model (`model_version_policy` of TF Serving's ModelConfig: latest, all or
specific). A new version is loaded and warmed up while the old one answers; then both are swapped in one
assignment. A request holds the version it started on, which therefore goes only when its last request is done.
A version that does not load is reported by GetModelStatus and in the log, and the one before stays.
"""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Iterable, Mapping

import tensorflow as tf
from absl import logging
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2

from common import versions
from common.command_line import UserError
from serving.endpoint.request_error import invalid, not_found
from serving.endpoint.servable import Servable

VersionStatus = get_model_status_pb2.ModelVersionStatus
_VersionPolicy = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy


def _aspired(found: Iterable[int], policy: _VersionPolicy) -> list[int]:
    """The versions to serve, newest first, among those `found`."""
    newest_first = sorted(found, reverse=True)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return newest_first
    if choice == "specific":
        return [version for version in newest_first if version in policy.specific.versions]
    return newest_first[: max(policy.latest.num_versions, 1)]


def _fingerprint(folder: pathlib.Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when anything in the folder does: a version that failed is tried again then."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


class UnavailableLabel(UserError):
    """A version label for a version that is not served."""


class ModelVersions:
    """One model and its versions, loaded and failed."""

    def __init__(self, config: model_server_config_pb2.ModelConfig) -> None:
        self.config = config
        self.available: Mapping[int, Servable] = {}  # replaced as a whole: readers need no lock
        self.statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, object] = {}

    def refresh(self) -> None:
        """Loads the aspired versions that are not loaded, then lets go of the others."""
        found = versions.list_versions(self.config.base_path)
        aspired = _aspired(found, self.config.model_version_policy)
        for version in aspired:
            if version not in self.available:
                self._load(version, found[version])
        kept = {version: servable for version, servable in self.available.items() if version in aspired}
        if kept:  # a folder that was emptied, or a new version that is broken, takes no model away
            for version in self.available.keys() - kept.keys():
                self.statuses[version] = VersionStatus(version=version, state=VersionStatus.END)
                logging.info("%s version %d unloaded", self.config.name, version)
            self.available = kept

    def _load(self, version: int, folder: pathlib.Path) -> None:
        fingerprint = _fingerprint(folder)
        if self._failed.get(version) == fingerprint:
            return
        self.statuses[version] = VersionStatus(version=version, state=VersionStatus.LOADING)
        try:
            servable = Servable(version, folder)
        except Exception as error:  # whatever is wrong with one version must not end the watching
            self._failed[version] = fingerprint
            reason = " ".join((getattr(error, "message", None) or str(error)).split())
            logging.warning("%s version %d does not load: %s", self.config.name, version, reason)
            status = VersionStatus(version=version, state=VersionStatus.END)
            status.status.error_code, status.status.error_message = tf.errors.UNKNOWN, reason
            self.statuses[version] = status
            return
        self.available = {**self.available, version: servable}
        self.statuses[version] = VersionStatus(version=version, state=VersionStatus.AVAILABLE)
        logging.info("%s version %d loaded", self.config.name, version)


class ModelStore:
    """All models of a server, by name; a context manager that watches their folders while it is open."""

    def __init__(
        self,
        configs: Iterable[model_server_config_pb2.ModelConfig],
        poll_seconds: float,
        any_label: bool = False,
    ) -> None:
        """Loads the models.

        Args:
          configs: name, base path, and optionally version policy and labels of each model.
          poll_seconds: how often to look for new versions; 0 for never.
          any_label: whether a label may be for a version that is not served (yet); who asks for it gets NOT_FOUND.

        Raises:
          UserError: a base path without a version, or with none that loads, or a label for one that is not served.
        """
        self._models: Mapping[str, ModelVersions] = {}
        self._poll_seconds, self._any_label = poll_seconds, any_label
        self._changing = threading.Lock()  # held by whoever loads: the watcher, or a reload request
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self.replace(configs)

    def replace(self, configs: Iterable[model_server_config_pb2.ModelConfig]) -> None:
        """Serves these models from now on; those with an unchanged base path keep their loaded versions.

        Raises:
          UserError: a model cannot be served; nothing has changed then.
        """
        with self._changing:
            models = {}
            for config in configs:
                model = ModelVersions(config)
                old = self._models.get(config.name)
                if old is not None and old.config.base_path == config.base_path:
                    model.available, model.statuses = old.available, dict(old.statuses)
                model.refresh()
                if not model.available:
                    raise UserError(_why_unavailable(model))
                for number in config.version_labels.values():
                    if number not in model.available and not self._any_label:
                        raise UnavailableLabel(
                            f"Request to assign label to version {number} of model {config.name}, which is not "
                            "currently available for inference"
                        )
                models[config.name] = model
            self._models = models

    def servable(self, spec: model_pb2.ModelSpec) -> Servable:
        """Finds the version that a request means: by number, by label, or the newest.

        Raises:
          RequestError: there is none, worded as TF Serving does.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            available = model.available if model else {}
            if not available:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            return available[max(available)]
        number = spec.version.value
        if choice == "version_label":
            labels = model.config.version_labels if model else {}
            if spec.version_label not in labels:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            number = labels[spec.version_label]
        servable = model.available.get(number) if model else None
        if servable is None:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return servable

    def statuses(self, spec: model_pb2.ModelSpec) -> list[VersionStatus]:
        """What GetModelStatus reports, newest version first.

        Raises:
          RequestError: the model, or the version asked for, is unknown.
        """
        model = self._models.get(spec.name)
        statuses = dict(model.statuses) if model else {}
        if spec.WhichOneof("version_choice") == "version":
            number = spec.version.value
            if number not in statuses:
                raise not_found(f"Could not find version {number} of model {spec.name}")
            return [statuses[number]]
        if not statuses:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return [statuses[version] for version in sorted(statuses, reverse=True)]

    def has(self, name: str) -> bool:
        """Whether a model is served under a name."""
        return name in self._models

    def served(self) -> dict[str, list[int]]:
        """The versions that answer, by model."""
        return {name: sorted(model.available) for name, model in self._models.items()}

    def __enter__(self) -> ModelStore:
        if self._poll_seconds > 0:
            self._watcher = threading.Thread(target=self._watch, name="model-store", daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._poll_seconds):
            with self._changing:
                for model in self._models.values():
                    try:
                        model.refresh()
                    except OSError as error:  # a folder that vanished while it was read: next time
                        logging.warning("%s: %s", model.config.base_path, error)


def _why_unavailable(model: ModelVersions) -> str:
    config = model.config
    failures = [
        f"version {status.version} does not load: {status.status.error_message}"
        for status in model.statuses.values()
        if status.status.error_code
    ]
    if failures:
        return f"model {config.name} at {config.base_path}: {'; '.join(failures)}; export it again"
    what = "has no version folder" if os.path.isdir(config.base_path) else "is not a folder"
    return (
        f"model {config.name}: {config.base_path} {what} (expected {config.base_path}/1/saved_model.pb); "
        f"write one with python -m serving.export --workdir=WORKDIR --export_dir={config.base_path}"
    )

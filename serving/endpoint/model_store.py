"""A server's models: watches their version folders, loads the versions to serve, and unloads the others.

Each model's `model_version_policy` in TF Serving's ModelConfig decides which versions are served: latest (the default),
all or specific. A new version is loaded and warmed up while the old one keeps answering, then both are swapped in one
assignment. A request holds a reference to the version it started on, so a version is freed only after its last request.
If a version fails to load, GetModelStatus and the log report it, and the previous version stays.
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
    """Selects the versions to serve among those `found`, newest first."""
    newest_first = sorted(found, reverse=True)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return newest_first
    if choice == "specific":
        return [version for version in newest_first if version in policy.specific.versions]
    return newest_first[: max(policy.latest.num_versions, 1)]


def _fingerprint(folder: pathlib.Path) -> tuple[tuple[str, int, int], ...]:
    """Returns a value that changes when any file in the folder does; a failed version is then retried."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


class UnavailableLabel(UserError):
    """Raised for a version label whose version is not served."""


class ModelVersions:
    """One model with its loaded and failed versions."""

    def __init__(self, config: model_server_config_pb2.ModelConfig) -> None:
        self.config = config
        self.available: Mapping[int, Servable] = {}  # replaced as a whole: readers need no lock
        self.statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, object] = {}

    def refresh(self) -> None:
        """Loads the versions to serve that are not loaded yet, then unloads the others."""
        found = versions.list_versions(self.config.base_path)
        aspired = _aspired(found, self.config.model_version_policy)
        for version in aspired:
            if version not in self.available:
                self._load(version, found[version])
        kept = {version: servable for version, servable in self.available.items() if version in aspired}
        if kept:  # keep serving if the folder was emptied or the new version is broken
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
        except Exception as error:  # one broken version must not stop the watcher
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
    """A server's models by name; a context manager that watches their folders while open."""

    def __init__(
        self,
        configs: Iterable[model_server_config_pb2.ModelConfig],
        poll_seconds: float,
        any_label: bool = False,
    ) -> None:
        """Loads the models.

        Args:
          configs: each model's name, base path, and optional version policy and labels.
          poll_seconds: seconds between checks for new versions; 0 for never.
          any_label: allow labels for versions that are not served (yet); requests for them get NOT_FOUND.

        Raises:
          UserError: a base path has no version that loads, or a label's version is not served.
        """
        self._models: Mapping[str, ModelVersions] = {}
        self._poll_seconds, self._any_label = poll_seconds, any_label
        self._changing = threading.Lock()  # held while loading, by the watcher or a reload request
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self.replace(configs)

    def replace(self, configs: Iterable[model_server_config_pb2.ModelConfig]) -> None:
        """Replaces the set of served models; those with an unchanged base path keep their loaded versions.

        Raises:
          UserError: a model cannot be served; the served models are then unchanged.
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
        """Finds the version that a request asks for: by number, by label, or the newest.

        Raises:
          RequestError: no such version; worded like TF Serving's error.
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
        """Returns what GetModelStatus reports, newest version first.

        Raises:
          RequestError: the model or the requested version is unknown.
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
        """Whether a model of this name is served."""
        return name in self._models

    def served(self) -> dict[str, list[int]]:
        """Returns the available versions by model."""
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
                    except OSError as error:  # the folder vanished while being read; retry at the next poll
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

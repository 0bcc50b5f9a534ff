"""Reads TF Serving's `--model_config_file`: the models to serve, their versions and their labels."""

from __future__ import annotations

import os
import pathlib

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from common.command_line import UserError

_PLATFORM = "tensorflow"


def parse(text: str, source: str) -> list[model_server_config_pb2.ModelConfig]:
    """Parses a ModelServerConfig in text format.

    Args:
      text: the file's content.
      source: the file's name in error messages.

    Raises:
      UserError: not a ModelServerConfig, or it has no model, or a model cannot be served.
    """
    try:
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise UserError(f"{source}: not a ModelServerConfig in text format: {error}") from error
    models = list(config.model_config_list.config)
    if not models:
        raise UserError(f"{source}: names no model; it needs model_config_list {{ config {{ name: … base_path: … }} }}")
    names = [model.name for model in models]
    for model in models:
        if not model.name or not model.base_path:
            raise UserError(f"{source}: model {model.name!r} at {model.base_path!r}: name and base_path are needed")
        if names.count(model.name) > 1:
            raise UserError(f"{source}: {model.name} is configured twice; names are unique")
        if model.model_platform not in ("", _PLATFORM):
            raise UserError(
                f"{source}: {model.name}: model_platform {model.model_platform!r}; only {_PLATFORM!r} is served"
            )
    return models


def read(path: str | os.PathLike) -> list[model_server_config_pb2.ModelConfig]:
    """Reads the file.

    Raises:
      UserError: the file cannot be read, is not a ModelServerConfig, has no model, or has one that cannot be served.
    """
    try:
        return parse(pathlib.Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--model_config_file={path}: {getattr(error, 'strerror', None) or error}") from error

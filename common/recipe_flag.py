"""A flag that selects a recipe: a bundled one by name, wherever Cleanplate is installed, or a file by path.

--config=default            the recipe `configs/default.py`
--config=configs/mine.py    a file with a `get_config()`
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections.config_flags import config_flags

flags.disclaim_key_flags()  # `--help` lists the flag under the module that calls `define`

# Located by name, not imported, because `configs` depends on `common`.
_FOLDER = Path(importlib.util.find_spec("configs").submodule_search_locations[0])
_DEFINES_A_RECIPE = re.compile(r"^def get_config\(", re.MULTILINE)


def names() -> list[str]:
    """Returns the names of the bundled recipes, sorted."""
    return sorted(
        path.stem for path in _FOLDER.glob("*.py") if _DEFINES_A_RECIPE.search(path.read_text(encoding="utf-8"))
    )


def find(recipe: str) -> str:
    """Finds the file of a recipe.

    Args:
      recipe: a name such as "default", or the path of a .py file. Text after a colon is passed to the file's
        `get_config`.

    Returns:
      The file's path, with the colon and the text after it, if any.

    Raises:
      ValueError: the recipe or file does not exist.
    """
    name, colon, argument = recipe.partition(":")
    known = names()
    if name in known:
        return f"{_FOLDER / name}.py{colon}{argument}"
    if not name.endswith(".py"):
        raise ValueError(f"no recipe has that name; there are {', '.join(known)}, or give the path of a .py file")
    if not Path(name).is_file():
        raise ValueError(f"no such file; the recipes that come with Cleanplate are {', '.join(known)}")
    return recipe


class _RecipeParser(config_flags.ConfigFileFlagParser):
    """Resolves a recipe's name to its file before loading it."""

    def parse(self, recipe: str) -> ml_collections.ConfigDict:
        return super().parse(find(recipe))


def define(name: str, default: str | None, help_text: str) -> flags.FlagHolder:
    """Defines `--NAME` among the process's flags, and `--NAME.FIELD` for each of the recipe's fields.

    Args:
      name: the flag's name.
      default: a recipe as in `find`, or None.
      help_text: the text for `--help`; the recipes' names are appended.
    """
    help_text = f"{help_text} One of {', '.join(names())}, or the path of a .py file."
    holder = config_flags.DEFINE_config_file(name, None, help_text)
    flags.FLAGS[name].parser = _RecipeParser(name)
    if default is not None:
        flags.set_default(holder, default)
    return holder

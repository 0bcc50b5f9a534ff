"""A flag that names a recipe: one of ours by its name, wherever Cleanplate is installed, or a file by its path.

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

flags.disclaim_key_flags()  # `--help` lists the flag among those of the module that calls `define`

# Found by name, not imported: `configs` stands on `common`.
_FOLDER = Path(importlib.util.find_spec("configs").submodule_search_locations[0])
_DEFINES_A_RECIPE = re.compile(r"^def get_config\(", re.MULTILINE)


def names() -> list[str]:
    """The recipes that come with Cleanplate."""
    return sorted(
        path.stem for path in _FOLDER.glob("*.py") if _DEFINES_A_RECIPE.search(path.read_text(encoding="utf-8"))
    )


def find(recipe: str) -> str:
    """The file of a recipe.

    Args:
      recipe: a name such as "default", or the path of a file that ends in .py. What follows a colon goes to the file's
        `get_config`.

    Returns:
      The file's path, and what followed the colon.

    Raises:
      ValueError: there is no such recipe, or no such file.
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
    """Finds the file before it loads it."""

    def parse(self, recipe: str) -> ml_collections.ConfigDict:
        return super().parse(find(recipe))


def define(name: str, default: str | None, help_text: str) -> flags.FlagHolder:
    """Defines `--NAME` among the process's flags, and `--NAME.FIELD` for each of the recipe's fields.

    Args:
      name: of the flag.
      default: a recipe, see `find`, or None.
      help_text: what `--help` says; the names of the recipes are added.
    """
    help_text = f"{help_text} One of {', '.join(names())}, or the path of a .py file."
    holder = config_flags.DEFINE_config_file(name, None, help_text)
    flags.FLAGS[name].parser = _RecipeParser(name)
    if default is not None:
        flags.set_default(holder, default)
    return holder

"""The house keeps its order: imports go downwards only, and no folder outgrows a reader."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import those before it.
ROOMS = ["common", "configs", "preprocessing", "training", "serving"]
MOST_MODULES = 14


def _imported(path):
    """The top-level packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_none_above_it(room):
    above = {*ROOMS[ROOMS.index(room) + 1 :], "benchmarks", "examples", "tests"}
    files = sorted((ROOT / room).rglob("*.py"))
    found = {str(path.relative_to(ROOT)): set(_imported(path)) & above for path in files}
    assert files and not {path: names for path, names in found.items() if names}


def test_the_check_sees_an_import_inside_a_function(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from serving.client import Restorer\n")
    assert list(_imported(tmp_path / "a.py")) == ["serving"]


def test_no_folder_holds_more_modules_than_a_reader_takes_in():
    counts = {}
    for top in [*ROOMS, "benchmarks", "examples", "pretrained", "tests"]:
        for path in (ROOT / top).rglob("*.py"):
            if path.name != "__init__.py":
                counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_MODULES} == {}

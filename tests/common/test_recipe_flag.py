"""Recipes are found by name wherever a command is started, and files by their path."""

import subprocess
import sys
from pathlib import Path

import pytest

from common import recipe_flag

_SCRIPT = """
from common import command_line, recipe_flag
recipe = recipe_flag.define("config", "default", "The recipe.")
command_line.run(lambda argv: print(recipe.value.model.name, recipe.value.max_minutes, recipe.value.batch_size))
"""
_ROOT = Path(__file__).parents[2]


def _run(folder, *arguments):
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    environment = {"PYTHONPATH": str(_ROOT)}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "unet 0.0 16"),
        (["--config=srresnet"], "srresnet 0.0 16"),
        (["--config=demo", "--config.batch_size=3"], "unet 5.0 3"),
        (["--config.batch_size=3"], "unet 0.0 3"),
    ],
)
def test_a_name_is_found_from_any_folder(tmp_path, arguments, shown):
    assert _run(tmp_path, *arguments).stdout.strip() == shown


def test_a_file_is_found_by_its_path(tmp_path):
    (tmp_path / "default.py").write_text(
        "from configs import demo\n\ndef get_config(size='7'):\n"
        "    config = demo.get_config()\n    config.batch_size = int(size)\n    return config\n"
    )
    assert _run(tmp_path, "--config=default.py").stdout.strip() == "unet 5.0 7"
    assert _run(tmp_path, "--config=./default.py:9").stdout.strip() == "unet 5.0 9"
    assert _run(tmp_path, f"--config={_ROOT}/configs/srresnet.py").stdout.strip() == "srresnet 0.0 16"
    assert _run(_ROOT, "--config=configs/srresnet.py").stdout.strip() == "srresnet 0.0 16"


@pytest.mark.parametrize("recipe", ["defualt", "command_line", "elsewhere/mine.py", "configs/default.py", ""])
def test_what_there_is_not_is_answered_by_the_names_in_one_line(tmp_path, recipe):
    done = _run(tmp_path, f"--config={recipe}", "--config.batch_size=3")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"--config={recipe}: no " in done.stderr
    assert "default, demo, generic, nafnet, refine, repair, srresnet" in done.stderr


def test_every_name_is_a_recipe():
    for name in recipe_flag.names():
        assert recipe_flag.find(name) == str(_ROOT / "configs" / f"{name}.py")
    assert "recipe_flag" not in recipe_flag.names()


def test_help_lists_the_names(tmp_path):
    done = _run(tmp_path, "--help")
    assert "--config" in done.stdout and "default, demo, generic" in " ".join(done.stdout.split())

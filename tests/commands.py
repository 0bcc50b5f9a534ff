"""The shell that the documents show: its commands, and whether the flags in them exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from common.beam import runner
from configs import default

ROOT = Path(__file__).parents[1]
# They hand on to Beam what is not a flag of theirs.
BEAM_JOBS = ("preprocessing.coco_to_tfrecord", "serving.batch_restore")

# In a process of their own: two of our modules may define a flag of the same name, and tests import some that do.
_LIST_FLAGS = """
import importlib, json, sys
from absl import flags

found = {}
for name in sys.argv[1:]:
    own = getattr(importlib.import_module(name), "_FLAGS", None)
    defined = [own[each] for each in own] if own else flags.FLAGS.get_flags_for_module(name)
    found[name] = {flag.name: flag.boolean for flag in defined}
print(json.dumps(found))
"""


def shell_of(document):
    """The commands in a document's blocks of shell, each as it stands there, its continuation lines with it."""
    for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for command in re.split(r"(?<![\\|])\n", block):
            if shlex.split(command, comments=True):
                yield command


def words_of(command):
    return shlex.split(command.replace("\\\n", " "), comments=True)


def flags_of(modules):
    """The names of each module's flags, and whether they are on/off."""
    command = [sys.executable, "-c", _LIST_FLAGS, *sorted({*modules, "training.train"})]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def _others(own, arguments):
    """What is not a module's own flag; fails at one of its own that is not written as it must be."""
    others = []
    for argument in arguments:
        name, has_value, _ = argument[2:].partition("=")
        if argument.startswith("--config."):
            assert "config" in own
            field = default.get_config()
            for part in name.split(".")[1:]:
                field = field[part]  # KeyError: no such field
        elif argument.startswith("--") and name in own:
            assert has_value or own[name]
        else:
            others.append(argument)
    return others


def check_flags(words, flags):
    """Fails at a flag of `python -m MODULE …` that neither the module has nor Beam, where the module hands flags on."""
    assert words[:2] == ["python", "-m"]
    module, arguments = words[2], words[3:]
    if module == "training.local_workers":
        separator = arguments.index("--")
        assert _others(flags["training.train"], arguments[separator + 1 :]) == []
        arguments = arguments[:separator]
    others = _others(flags[module], arguments)
    if module in BEAM_JOBS:
        runner.parse_options(others)  # UserError: none of Beam's either
    else:
        assert not [argument for argument in others if argument.startswith("-")]

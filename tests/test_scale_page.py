"""The commands of docs/scale.md are such as our modules, Beam and Dask take."""

import argparse
import importlib
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from configs import beam_runner, default

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = (_ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
# They hand on to Beam what is not a flag of theirs.
_BEAM_JOBS = ("preprocessing.coco_to_tfrecord", "serving.batch_restore")
# What else the page calls, with flags that are not ours to check.
_OTHERS = ("aws", "docker", "gcloud", "kubectl", "pip")


def _commands():
    """The words of each command in the page's blocks of shell."""
    for block in re.findall(r"^```sh\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


_COMMANDS = list(_commands())


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


@pytest.fixture(scope="module")
def own_flags():
    """Of each module that the page calls: the names of its flags, and whether they are on/off."""
    modules = {words[2] for words in _COMMANDS if words[0] == "python"}
    command = [sys.executable, "-c", _LIST_FLAGS, *sorted(modules | {"training.train"})]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


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


def _options_of_dask(command):
    main = importlib.import_module(f"distributed.cli.dask_{command}").main
    return {option for parameter in main.params for option in parameter.opts}


def _options_of_beam():
    beam_runner.parse_options(["--runner=DaskRunner"])  # Dask's are known to Beam from here on
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("words", _COMMANDS, ids=" ".join)
def test_a_command_of_the_page_is_one(words, own_flags):
    program, *arguments = words
    if program == "python":
        assert arguments[0] == "-m"
        module, arguments = arguments[1], arguments[2:]
        if module == "training.local_workers":
            separator = arguments.index("--")
            assert _others(own_flags["training.train"], arguments[separator + 1 :]) == []
            arguments = arguments[:separator]
        others = _others(own_flags[module], arguments)
        if module in _BEAM_JOBS:
            beam_runner.parse_options(others)  # UserError: none of Beam's either
        else:
            assert not [argument for argument in others if argument.startswith("-")]
    elif program == "dask":
        given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        assert given <= _options_of_dask(arguments[0])
    elif program == "export":
        assert all(re.match(r"\w+=", argument) for argument in arguments)
    else:
        assert program in _OTHERS


def test_the_page_has_a_command_for_every_runner_and_both_jobs():
    runners = {word for words in _COMMANDS for word in words if word.startswith("--runner=")}
    assert {f"--runner={name}Runner" for name in ("Dask", "Dataflow", "Flink", "Spark", "Portable")} == runners
    assert {words[2] for words in _COMMANDS if words[0] == "python"} >= {*_BEAM_JOBS, "training.local_workers"}


def test_flags_that_the_text_names_are_known_too(own_flags):
    named = set(re.findall(r"`(--[a-z][\w-]*)", re.sub(r"```.*?```", "", _PAGE, flags=re.DOTALL)))
    ours = {f"--{flag}" for module in own_flags.values() for flag in module}
    of_the_container = {"--worker_pool"}
    assert len(named) > 20
    assert named - ours - _options_of_beam() - _options_of_dask("worker") == of_the_container


def test_the_two_hosts_see_the_same_cluster():
    described = [json.loads(words[1].partition("=")[2]) for words in _COMMANDS if words[1].startswith("TF_CONFIG=")]
    assert [each["task"]["index"] for each in described] == [0, 1]
    assert described[0]["cluster"] == described[1]["cluster"] and len(described[0]["cluster"]["worker"]) == 2
    commands = [words for words in _COMMANDS if "--strategy=multi_worker" in words]
    assert len(commands) == 2 and commands[0] == commands[1]


def test_files_that_the_page_names_are_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", _PAGE)
    assert links and all((_ROOT / "docs" / link).exists() for link in links)
    assert all((_ROOT / words[-1]).exists() for words in _COMMANDS if words[:2] == ["kubectl", "apply"])

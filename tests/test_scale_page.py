"""The commands of docs/scale.md are such as our modules, Beam and Dask take."""

import argparse
import importlib
import json
import pathlib
import re

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from common.beam import runner
from tests.commands import BEAM_JOBS, check_flags, flags_of, shell_of, words_of

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = (_ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
# What else the page calls, with flags that are not ours to check.
_OTHERS = ("aws", "docker", "gcloud", "kubectl", "pip")


_COMMANDS = [words_of(command) for command in shell_of(_ROOT / "docs" / "scale.md")]


@pytest.fixture(scope="module")
def own_flags():
    """Of each module that the page calls: the names of its flags, and whether they are on/off."""
    return flags_of({words[2] for words in _COMMANDS if words[0] == "python"})


def _options_of_dask(command):
    main = importlib.import_module(f"distributed.cli.dask_{command}").main
    return {option for parameter in main.params for option in parameter.opts}


def _options_of_beam():
    runner.parse_options(["--runner=DaskRunner"])  # Dask's are known to Beam from here on
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("words", _COMMANDS, ids=" ".join)
def test_a_command_of_the_page_is_one(words, own_flags):
    program, *arguments = words
    if program == "python":
        check_flags(words, own_flags)
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
    assert {words[2] for words in _COMMANDS if words[0] == "python"} >= {*BEAM_JOBS, "training.local_workers"}


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

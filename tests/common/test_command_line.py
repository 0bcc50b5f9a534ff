"""Commands fail in one line, and libraries' start-up noise is filtered while warnings are not."""

import subprocess
import sys

import pytest


def _run(body, *arguments):
    script = (
        "from common import command_line\nimport logging\nfrom absl import logging as absl_logging\n"
        f"def main(argv):\n    {body}\ncommand_line.run(main)"
    )
    return subprocess.run([sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True)


def test_a_users_error_is_one_line_and_exit_code_1():
    done = _run("raise command_line.UserError('picture a.jpg: is empty; take it out')")
    assert done.returncode == 1 and done.stderr == "error: picture a.jpg: is empty; take it out\n"


def test_a_programming_error_keeps_its_traceback():
    done = _run("raise ValueError('a bug')")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_an_unknown_flag_is_one_line():
    done = _run("pass", "--no_such_flag=1")
    assert done.returncode == 1 and "no_such_flag" in done.stderr and done.stderr.count("\n") == 1


def test_an_interrupt_is_no_traceback():
    done = _run("raise KeyboardInterrupt")
    assert done.returncode == 130 and done.stderr == "interrupted\n"


@pytest.mark.parametrize(
    "call", ["logging.warning('disk is nearly full')", "absl_logging.warning('disk is nearly full')"]
)
def test_a_warning_that_matters_is_shown(call):
    assert _run(call).stderr == "warning: disk is nearly full\n"


def test_tensorflow_starts_without_a_greeting():
    done = subprocess.run(
        [sys.executable, "-c", "import training, tensorflow as tf; tf.constant(1)"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""

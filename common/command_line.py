"""Starts every command, and reports user errors as one clear line with a nonzero exit code and no traceback."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Callable, Optional

from absl import app, flags
from absl import logging as absl_logging


class UserError(Exception):
    """Raised for invalid user input.

    The message names the file, record or flag, what is wrong with it and the remedy. `run` prints it as one line and
    exits with 1; code that calls the libraries directly can catch it like any exception.
    """


class _Formatter(logging.Formatter):
    """Formats plain lines for a terminal, with the level shown only above INFO."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def _guarded(main: Callable[[Sequence[str]], Optional[int]]) -> Callable[[Sequence[str]], Optional[int]]:
    def guarded(argv: Sequence[str]) -> Optional[int]:
        absl_logging.use_absl_handler()
        absl_logging.get_absl_handler().setFormatter(_Formatter())
        absl_logging.set_verbosity(absl_logging.INFO)
        for talkative in ("apache_beam", "tensorflow", "tf2onnx"):
            logging.getLogger(talkative).setLevel(logging.WARNING)
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return guarded


def refuse_positional(argv: Sequence[str]) -> None:
    """Raises a `UserError` for the first positional argument, for a command that takes flags alone."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; --help lists the flags")


def required(module: str, *holders: flags.FlagHolder) -> list[Any]:
    """Returns the values of flags that must be given.

    Args:
      module: of the command, such as "serving.export", for the error.
      *holders: the flags.

    Raises:
      UserError: one has no value.
    """
    for holder in holders:
        if not holder.value:
            raise UserError(f"--{holder.name} is missing; python -m {module} --help shows a whole command")
    return [holder.value for holder in holders]


def run(main: Callable[[Sequence[str]], Optional[int]], pass_unknown_flags: bool = False) -> None:
    """Parses flags, calls `main(argv)` and exits with its return value.

    Args:
      main: takes the positional arguments (argv[0] is the program) and returns the exit code; None means 0.
      pass_unknown_flags: leave unknown flags in `argv`, for a library with its own options (Beam).
    """

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            return flags.FLAGS(argv, known_only=pass_unknown_flags)
        except flags.Error as error:
            print(f"error: {error}; --help lists the flags", file=sys.stderr)
        except (AttributeError, KeyError) as error:  # ml_collections: unknown --config.FIELD
            print(f"error: --config has no field {error}; the file that --config names lists them", file=sys.stderr)
        sys.exit(1)

    app.run(_guarded(main), flags_parser=parse)

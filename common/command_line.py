"""How every command of ours starts and fails: one clear line for the user, no traceback, exit code not 0."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Callable, Optional

from absl import app, flags
from absl import logging as absl_logging


class UserError(Exception):
    """What the user gave cannot be used.

    The message names the file, record or flag, says what is wrong with it and what to do. `run` prints it as one
    line and exits with 1; code that calls the libraries directly catches it like any exception.
    """


class _Formatter(logging.Formatter):
    """Plain lines for a person at a terminal: the level is written only where it asks for attention."""

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
        except (UserError, app.UsageError) as error:  # absl's own would print all flags
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
    """Parses flags, calls `main(argv)` and exits with what it returns.

    Args:
      main: receives the positional arguments (argv[0] is the program) and returns the exit code, None for 0.
      pass_unknown_flags: leave flags that are not ours in `argv`, for a library with options of its own (Beam).
    """

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            return flags.FLAGS(argv, known_only=pass_unknown_flags)
        except flags.Error as error:
            print(f"error: {error}; --help lists the flags", file=sys.stderr)
        except (AttributeError, KeyError) as error:  # ml_collections' word for --config.FIELD that is not there
            print(f"error: --config has no field {error}; the file that --config names lists them", file=sys.stderr)
        sys.exit(1)

    app.run(_guarded(main), flags_parser=parse)

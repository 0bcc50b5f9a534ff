"""Flags that belong to an entry module and not to every process that imports it.

absl's flags are global by name: two modules that both define `--model_name` cannot be imported together, and code
that imports `serving.client.Restorer` would find our flags among its own. Each entry module here defines its flags
in a `FlagValues` of its own, and only the one that is run puts them on the command line:

    _FLAGS = flags.FlagValues()
    _PORT = flags.DEFINE_integer("port", 8500, "…", flag_values=_FLAGS)

    def run() -> None:
        entry_flags.adopt(_FLAGS)
        command_line.run(main)
"""

from __future__ import annotations

import sys

from absl import flags


def adopt(own: flags.FlagValues) -> None:
    """Makes `own` the flags of this process's command line, listed by its `--help`."""
    flags.FLAGS.append_flag_values(own)
    for name in own:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], own[name])
    # From here on they are read through `own`, while the command line is parsed through `flags.FLAGS`.
    own.mark_as_parsed()

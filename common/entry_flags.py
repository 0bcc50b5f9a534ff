"""Flags that belong to an entry module, not to every process that imports it.

absl's flags are global by name: two modules that both define `--model_name` cannot be imported together, and code
that imports `serving.client.Restorer` would get our flags among its own. So each entry module defines its flags in its
own `FlagValues`, and only the module that is run adds them to the command line:

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
    """Adds `own` to the flags of this process's command line, listed by `--help`."""
    flags.FLAGS.append_flag_values(own)
    for name in own:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], own[name])
    # The flags are read through `own`, although `flags.FLAGS` parses the command line.
    own.mark_as_parsed()

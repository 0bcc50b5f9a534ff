"""Beam's worker process, started by `common.beam.runner` as `python -m common.beam.worker`; not to be run by hand.

It is Beam's own worker with two differences. First, it has a null log handler: its log already goes to the main
process, which prints it, and without a handler Python would print warnings a second time, starting with the one about
the missing Google Cloud client. Second, it prints no tracebacks: they reach the log and the main process's error.
"""

import logging
import sys

# Before Beam is imported, because the import itself warns.
logging.getLogger().addHandler(logging.NullHandler())

if __name__ == "__main__":
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main

    sdk_worker.print = lambda *_, **__: None
    sdk_worker_main.main(sys.argv)

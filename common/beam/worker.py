"""Beam's worker process, started by `common.beam.runner` as `python -m common.beam.worker`; not for calling by hand.

It is Beam's own, with two differences. Its log already goes to the main process, which prints it; without a
handler here Python would print warnings a second time, and first of all that the Google Cloud client is not
installed. And it prints no tracebacks of its own: they go into the log and into the error that the main process raises.
"""

import logging
import sys

# Before Beam is imported: it is the import that warns.
logging.getLogger().addHandler(logging.NullHandler())

if __name__ == "__main__":
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main

    sdk_worker.print = lambda *_, **__: None
    sdk_worker_main.main(sys.argv)

"""Parses Beam's options and creates its runner, with startup noise silenced for terminal use.

Runners are selected by name (`--runner=DataflowRunner`, `FlinkRunner`, `DaskRunner` or a full class name).
Without a name, or with `DirectRunner`, the job runs on this machine:

    (nothing)                                                     in this process
    --direct_running_mode=multi_processing --direct_num_workers=4 in four worker processes

Beam's own `DirectRunner` now first downloads Prism, a Go program, and falls back to `FnApiRunner` only if that
fails. We use `FnApiRunner` directly: no download, no delay, and the same behavior on every machine.

By default, `DaskRunner` puts 128 elements into a task. Our elements are large (a shard or a batch of photos), so each
task gets one. If the job groups by key, it is limited to a few tasks per thread instead: grouping creates far more
tasks than it is given, a minute's worth for a thousand.
"""

import contextlib
import difflib
import io
import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import apache_beam as beam
from absl import flags
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms import environments

from common.command_line import UserError

_LOCAL = {None, "DirectRunner", "direct", "FnApiRunner"}

_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"  # Beam has no short name for it
_DASK_SECONDS = 10
_DASK_TASKS_A_THREAD, _DASK_LEAST_TASKS = 8, 16

# Messages at every start about things the user neither caused nor can change.
_NOISE = (
    "No semi_persistent_directory found",  # concerns containers; our workers are plain processes
    "Discarding unparseable args",  # about Beam's own options; `parse_options` checks the user's
    "in order for it to have the desired worker parallelism",  # see `create`
)


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parses Beam's options.

    Args:
      arguments: what remains after our own flags are parsed, such as `--runner=FlinkRunner`.

    Returns:
      The options.

    Raises:
      UserError: an argument is neither ours nor Beam's, its value is invalid, or the runner's package is not
        installed.
    """
    _quieten()
    arguments = list(arguments)
    if any("DaskRunner" in argument for argument in arguments):
        _import_dask()  # Beam knows a runner's flags only once its module is imported
    for before, argument in zip(["", *arguments], arguments):
        is_value = before.startswith("--") and "=" not in before
        if not argument.startswith("-") and not is_value:
            raise UserError(f"{argument!r}: not a flag; write --NAME=VALUE")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(arguments)
            known = options.get_all_options().keys()
            everything = options.get_all_options(retain_unknown_options=True).keys()
    except SystemExit:  # argparse prints a page of usage, then the error on the last line
        raise UserError(complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]) from None
    for name in sorted(everything - known):
        close = difflib.get_close_matches(name, [*flags.FLAGS, *known], n=1)
        hint = f"did you mean --{close[0]}?" if close else "--help lists ours, the rest are Beam's"
        raise UserError(f"--{name}: neither a flag of this command nor one of Apache Beam's; {hint}")
    return options


def create(options: PipelineOptions, groups: bool = False) -> PipelineRunner:
    """Creates the runner that the options name. Modifies `options` for local worker processes and for Dask.

    Args:
      options: as returned by `parse_options`.
      groups: whether the pipeline groups by key.

    Raises:
      UserError: the runner does not exist, or no Dask scheduler answers at the given address.
    """
    name: Optional[str] = options.view_as(StandardOptions).runner
    if name not in _LOCAL:
        try:
            runner = create_runner(_DASK if name == "DaskRunner" else name)
        except (ImportError, ValueError, AttributeError) as error:
            raise UserError(f"--runner={name}: {error}") from None
        if name.endswith("DaskRunner"):
            _prepare_dask(options, groups)
        return runner

    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return fn_runner.FnApiRunner()
    # The runner's default worker command prints startup noise straight to the terminal. It uses ours only if its
    # running mode is not set to multi-processing.
    direct.direct_running_mode = "in_memory"
    worker = options.view_as(WorkerOptions)
    worker.default_sdk_harness_log_level = worker.default_sdk_harness_log_level or "WARNING"
    # A worker must be able to import this package even if it is not installed, only on our sys.path.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = f"PYTHONPATH={shlex.quote(path)} exec {shlex.quote(sys.executable)} -m common.beam.worker"
    return fn_runner.FnApiRunner(
        default_environment=environments.SubprocessSDKEnvironment.from_command_string(command),
        provision_info=_provision(options),
    )


@contextlib.contextmanager
def pipeline(runner: PipelineRunner, options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """Yields a pipeline that runs when the `with` block ends, and waits for it to finish."""
    made = beam.Pipeline(runner=runner, options=options)
    try:
        with made:
            yield made
    finally:
        client = getattr(getattr(made, "result", None), "client", None)
        if client is not None:  # DaskRunner leaves its connection open
            client.close()


def _import_dask() -> tuple[Any, Any]:
    """Returns Beam's options class for Dask, and the `distributed` module."""
    try:
        # Read at import, here and in Dask's workers; without it Dask logs a page at every start and end.
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
        import distributed
        from apache_beam.runners.dask import dask_runner
    except ImportError:
        raise UserError("--runner: DaskRunner needs Dask; pip install 'cleanplate[dask]'") from None
    return dask_runner.DaskOptions, distributed


def _prepare_dask(options: PipelineOptions, groups: bool) -> None:
    dask_options, distributed = _import_dask()
    dask = options.view_as(dask_options)
    threads = os.cpu_count() or 1
    if dask.address:
        try:
            with distributed.Client(dask.address, timeout=dask.timeout or _DASK_SECONDS) as client:
                threads = sum(client.nthreads().values())
        except OSError as error:
            raise UserError(
                f"--dask_client_address={dask.address}: no scheduler answers there ({error}); start one with "
                "`dask scheduler`, and workers with `dask worker ADDRESS`"
            ) from None
    if dask.npartitions or dask.partition_size:
        return
    if groups:
        dask.npartitions = max(_DASK_LEAST_TASKS, _DASK_TASKS_A_THREAD * threads)
    else:
        dask.partition_size = 1


def _provision(options: PipelineOptions) -> fn_runner.ExtendedProvisionInfo:
    """Returns the startup information for a worker process: our options, so that it can reach object storage too."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    return fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))


def _quieten() -> None:
    for name in _loggers():
        logger = logging.getLogger(name)
        if _is_news not in logger.filters:
            logger.addFilter(_is_news)


def _loggers() -> Iterable[str]:
    yield "apache_beam.options.pipeline_options"
    yield "apache_beam.runners.portability.fn_api_runner.fn_runner"
    yield "apache_beam.runners.portability.local_job_service"


def _is_news(record: logging.LogRecord) -> bool:
    message: str = record.getMessage()
    return not any(noise in message for noise in _NOISE)

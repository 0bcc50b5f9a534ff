"""Beam's options and runner, chosen and quietened for a person at a terminal.

Any runner goes by its name (`--runner=DataflowRunner`, `FlinkRunner`, `DaskRunner`, a class's full name).
Without one, or with `DirectRunner`, the job runs here:

    (nothing)                                                     in this process
    --direct_running_mode=multi_processing --direct_num_workers=4 in four worker processes

Beam's own `DirectRunner` now begins by downloading Prism, a Go program, and falls back to `FnApiRunner` only
when that fails. We take `FnApiRunner` straight away: no download, no second of waiting, the same on every
machine.

`DaskRunner` puts 128 elements into a task unless it is told otherwise. Ours are large, a shard or a batch of
photos, so that a task gets one, or, where the job groups by key, a few tasks go to each thread: grouping makes
tasks of its own, far more than it gets, a minute's worth for a thousand.
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

# Said at every start, about nothing that a user did or can change.
_NOISE = (
    "No semi_persistent_directory found",  # a container's folder; workers here are plain processes
    "Discarding unparseable args",  # Beam's own options; the user's are checked in `parse_options`
    "in order for it to have the desired worker parallelism",  # see `create`
)


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Reads Beam's options.

    Args:
      arguments: such as `--runner=FlinkRunner`, as left over after our own flags were parsed.

    Returns:
      The options.

    Raises:
      UserError: an argument is not Beam's (and not ours, or it would not be here), its value is wrong, or the
        runner's package is not installed.
    """
    _quieten()
    arguments = list(arguments)
    if any("DaskRunner" in argument for argument in arguments):
        _import_dask()  # Beam knows the flags of a runner whose module was imported
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
    except SystemExit:  # argparse has printed a page of usage, and what was wrong in the last line
        raise UserError(complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]) from None
    for name in sorted(everything - known):
        close = difflib.get_close_matches(name, [*flags.FLAGS, *known], n=1)
        hint = f"did you mean --{close[0]}?" if close else "--help lists ours, the rest are Beam's"
        raise UserError(f"--{name}: neither a flag of this command nor one of Apache Beam's; {hint}")
    return options


def create(options: PipelineOptions, groups: bool = False) -> PipelineRunner:
    """Creates the runner that the options name; changes `options` where that is local worker processes, or Dask.

    Args:
      options: as `parse_options` returned them.
      groups: whether the pipeline groups by key.

    Raises:
      UserError: there is no such runner, or no Dask scheduler where the options say.
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
    # The runner's own choice of worker command prints start-up noise straight to the terminal. To have ours
    # taken instead, its running mode must not be set.
    direct.direct_running_mode = "in_memory"
    worker = options.view_as(WorkerOptions)
    worker.default_sdk_harness_log_level = worker.default_sdk_harness_log_level or "WARNING"
    # A worker must find this package where we did, also when it was not installed but only put on sys.path.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = f"PYTHONPATH={shlex.quote(path)} exec {shlex.quote(sys.executable)} -m common.beam.worker"
    return fn_runner.FnApiRunner(
        default_environment=environments.SubprocessSDKEnvironment.from_command_string(command),
        provision_info=_provision(options),
    )


@contextlib.contextmanager
def pipeline(runner: PipelineRunner, options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """A pipeline that runs at the end of the `with` block, which waits for it."""
    made = beam.Pipeline(runner=runner, options=options)
    try:
        with made:
            yield made
    finally:
        client = getattr(getattr(made, "result", None), "client", None)
        if client is not None:  # DaskRunner leaves its connection open
            client.close()


def _import_dask() -> tuple[Any, Any]:
    """Beam's options for Dask, and Dask itself."""
    try:
        # Read when Dask is imported, here and in the workers that it starts: a page at every start and end otherwise.
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
    """What a worker process is told at its start: the options, so that it reaches object storage as we do."""
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

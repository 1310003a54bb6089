"""Runs a flow in this process from a command line: options in, a summary out, one sentence if it fails."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from rich.console import Console

from data.errors import InputError
from flows.lifecycle import read_config
from flows.quiet import leave_quietly, quiet_prefect
from flows.summary import print_summary
from tasks.check import refuse_early
from tasks.options import Option, application, overrides, print_error, read_options

Show = Callable[[Any, Console], None]

PARAMETERS = inspect.signature(read_config).parameters
"""Parameters of a flow that make its config; a flow may have others."""

SERVER_OF_A_RUN = {
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
    # Prefect gives up after 20 s; on a busy machine its first start, which makes its database, takes longer.
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,
}
"""Settings of the server that a run starts for itself if no other is named."""
LOG_LEVEL_OF_SERVER = "PREFECT_LOGGING_ROOT_LEVEL"


def command(flow: Flow[..., Any], options: Sequence[Option], show: Show = print_summary) -> typer.Typer:
    """Return the command line of ``flow``. It exits with 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        options: each sets a parameter of the flow, or a key of the config.
        show: prints the flow's outcome.
    """
    parameters = inspect.signature(flow.fn).parameters

    def run(**given: Any) -> None:
        leave_quietly()
        values, settings = read_options(options, given)
        with ending_in_a_sentence(Console(stderr=True)):
            arguments = {key: value for key, value in values.items() if key in parameters}
            keys = {key: value for key, value in values.items() if key not in parameters}
            arguments["overrides"] = overrides(keys, settings)
            refuse_early(read_config(**{key: value for key, value in arguments.items() if key in PARAMETERS}))
            with quiet_prefect(), own_server():
                state: State[Any] = flow(**arguments, return_state=True)  # type: ignore[assignment]
                outcome = state.result()
            show(outcome, Console())

    summary = (inspect.getdoc(flow.fn) or "").partition("\n\nArgs:")[0]
    return application(run, options, summary)


@contextmanager
def own_server() -> Iterator[None]:
    """Set how Prefect starts a server for a run if no other is named.

    The run stops that server when it ends, in the middle of whatever it does, and sometimes the server then logs a
    traceback. So its log is silent, unless the user gave a level. Nothing is hidden by that: a run fails if it needs
    something of the server and does not get it.
    """
    given = os.environ.get(LOG_LEVEL_OF_SERVER)
    os.environ[LOG_LEVEL_OF_SERVER] = given or "CRITICAL"
    try:
        with temporary_settings(SERVER_OF_A_RUN):
            yield
    finally:
        if given is None:
            del os.environ[LOG_LEVEL_OF_SERVER]


@contextmanager
def ending_in_a_sentence(console: Console) -> Iterator[None]:
    """Turn what a person can cause into one sentence and an exit code; a bug still shows its traceback."""
    try:
        with _sigterm_raises():
            yield
    except InputError as error:
        print_error(error, console)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        _say_stopped(console)
        raise SystemExit(128 + signal.SIGINT) from None
    except TerminationSignal as error:
        _say_stopped(console)
        raise SystemExit(128 + (error.signal or signal.SIGTERM)) from None


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """After its own clean-up Prefect sends SIGTERM again, which by default ends the process without a word."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TerminationSignal(signal=number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_stopped(console: Console) -> None:
    console.print("Stopped. Finished stages and epochs are kept; the same command goes on from there.", soft_wrap=True)

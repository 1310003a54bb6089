"""Runs a flow here and now, as a person does while developing: options in, a summary out, a sentence where it fails."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator, Mapping
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
from flows.quiet import leave_quietly, quiet_prefect
from flows.summary import print_summary
from tasks.check import refuse_early
from tasks.options import (
    BaselinesOption,
    ConfigOption,
    EpochsOption,
    EventsOption,
    ModelOption,
    NameOption,
    PatienceOption,
    PresetOption,
    SeedOption,
    SeedsOption,
    SetOption,
    TrackArtistsOption,
    TrainerOption,
    absolute_paths,
    log_tables,
    overrides,
    print_error,
    training_tables,
)
from tasks.run_config import load_run_config

SERVER_OF_A_RUN = {
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
    # Prefect gives up after 20 s; on a busy machine its first start, which makes its database, takes longer.
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,
}
"""Settings of the server that a run starts for itself where no other was named."""
LOG_LEVEL_OF_SERVER = "PREFECT_LOGGING_ROOT_LEVEL"


def command(flow: Flow[..., Any]) -> None:
    """Parse the command line, run ``flow`` in this process, and exit."""
    leave_quietly()
    application(flow)()


def application(flow: Flow[..., Any]) -> typer.Typer:
    """The command line of ``flow``: its options, its help, its exit codes."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    takes_trainer = "trainer" in inspect.signature(flow.fn).parameters
    options = _training_options(flow) if takes_trainer else _graph_options(flow)
    summary = (inspect.getdoc(flow.fn) or "").partition("\n\nArgs:")[0]
    app.command(help=summary)(options)
    return app


def _training_options(flow: Flow[..., Any]) -> Callable[..., None]:
    def main(
        config: ConfigOption = None,
        trainer: TrainerOption = None,
        model: ModelOption = None,
        events: EventsOption = None,
        track_artists: TrackArtistsOption = None,
        preset: PresetOption = None,
        epochs: EpochsOption = None,
        patience: PatienceOption = None,
        seed: SeedOption = None,
        seeds: SeedsOption = None,
        baselines: BaselinesOption = None,
        name: NameOption = None,
        settings: SetOption = None,
    ) -> None:
        tables = training_tables(model, patience, seed, seeds, baselines, track_artists, preset)
        given = {"trainer": trainer, "num_epochs": epochs, "name": name}
        run_here(flow, config, events, tables, settings, given)

    return main


def _graph_options(flow: Flow[..., Any]) -> Callable[..., None]:
    def main(
        config: ConfigOption = None,
        events: EventsOption = None,
        track_artists: TrackArtistsOption = None,
        preset: PresetOption = None,
        name: NameOption = None,
        settings: SetOption = None,
    ) -> None:
        run_here(flow, config, events, log_tables(track_artists, preset), settings, {"name": name})

    return main


def run_here(
    flow: Flow[..., Any],
    config: str | None,
    events: list[str] | None,
    tables: dict[str, Any],
    settings: list[str] | None,
    given: Mapping[str, Any],
) -> None:
    """Run the flow in this process and print its summary; exit with 2, 130 or 143 where it ends early."""
    console = Console(stderr=True)
    with ending_in_a_sentence(console):
        laid_over, paths = overrides(tables, settings), absolute_paths(events)
        refuse_early(load_run_config(config, laid_over, given, events=paths))
        with quiet_prefect(), own_server():
            arguments = {"config": config, "events": paths, "overrides": laid_over, **given}
            state: State[Any] = flow(**arguments, return_state=True)  # type: ignore[assignment]
            outcome = state.result()
        print_summary(outcome, Console())


@contextmanager
def own_server() -> Iterator[None]:
    """Within: how Prefect starts a server for a run, where no other was named.

    That server is stopped in the middle of what it does when the run ends, and now and then logs a traceback for it.
    So its log is silent, unless the user gave a level: what a run needs of the server and does not get fails the run.
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

"""Runs a flow here and now, as a person does while developing: options in, a summary out, a sentence where it fails."""

from __future__ import annotations

import inspect
import signal
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from rich.console import Console

from data.errors import InputError
from flows.quiet import leave_quietly, quiet_prefect
from flows.summary import print_summary
from tasks.check import refuse_early
from tasks.config import load_run_config

ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="TOML file of the run, as in configs/; options below override it."),
]
EventsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--events",
        metavar="PATH",
        help="Files, folders or globs of the log (Parquet, CSV, JSON lines); may be repeated.",
    ),
]
TrackArtistsOption = Annotated[
    str | None,
    typer.Option(
        "--track-artists", metavar="PATH", help="Table of track_id and artist_id, where the log has no artists."
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="SIZE", help="Size of the synthetic log, used without --events: tiny, small, medium, large."
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name of the registered model. [default: songgraph]")
]
TrainerOption = Annotated[
    str | None,
    typer.Option(
        "--trainer", metavar="NAME", help="simple, advanced, curriculum, or package.module:Class. [default: advanced]"
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="gat, lightgcn, mf, or package.module:Class. [default: gat]"),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs at most. [default: 20]")]
PatienceOption = Annotated[
    int | None,
    typer.Option("--patience", metavar="N", min=1, help="Epochs without a better validation score before stopping."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the training. [default: 0]")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the config, for example training.lr=0.005; may be repeated."
    ),
]


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
        name: NameOption = None,
        settings: SetOption = None,
    ) -> None:
        tables = {
            "model": {"architecture": model},
            "training": {"patience": patience, "seed": seed},
            **_log_tables(track_artists, preset),
        }
        given = {"trainer": trainer, "num_epochs": epochs, "name": name}
        run_here(flow, config, events, tables, settings or [], given)

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
        run_here(flow, config, events, _log_tables(track_artists, preset), settings or [], {"name": name})

    return main


def _log_tables(track_artists: str | None, preset: str | None) -> dict[str, Any]:
    path = str(Path(track_artists).absolute()) if track_artists else None
    return {"ingest": {"track_artists": path}, "synthetic": {"preset": preset}}


def run_here(
    flow: Flow[..., Any],
    config: str | None,
    events: list[str] | None,
    tables: dict[str, Any],
    settings: list[str],
    given: Mapping[str, Any],
) -> None:
    """Run the flow in this process and print its summary; exit with 2, 130 or 143 where it ends early."""
    console = Console(stderr=True)
    with ending_in_a_sentence(console):
        overrides = _without_none(_with_settings(tables, settings))
        paths = [str(Path(path).expanduser().absolute()) for path in events or []] or None
        refuse_early(load_run_config(config, overrides, given, events=paths))
        with quiet_prefect(), temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: False}):
            state: State[Any] = flow(config=config, events=paths, overrides=overrides, **given, return_state=True)  # type: ignore[assignment]
            outcome = state.result()
        print_summary(outcome, Console())


@contextmanager
def ending_in_a_sentence(console: Console) -> Iterator[None]:
    """Turn what a person can cause into one sentence and an exit code; a bug still shows its traceback."""
    try:
        yield
    except InputError as error:
        console.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        _say_stopped(console)
        raise SystemExit(128 + signal.SIGINT) from None
    except TerminationSignal as error:
        _say_stopped(console)
        raise SystemExit(128 + (error.signal or signal.SIGTERM)) from None


def _say_stopped(console: Console) -> None:
    console.print("Stopped. Finished stages and epochs are kept; the same command goes on from there.")


def _with_settings(tables: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Lay ``table.key=value`` over the tables; values are TOML, and a bare word is a string."""
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set was given '{setting}'; write KEY=VALUE, for example --set training.lr=0.005.")
        *path, key = name.strip().split(".")
        table = tables
        for part in path:
            table = _table(table, part, setting)
        table[key] = _toml_value(text.strip())
    return tables


def _table(tables: dict[str, Any], name: str, setting: str) -> dict[str, Any]:
    table = tables.setdefault(name, {})
    if not isinstance(table, dict):
        raise InputError(f"--set was given '{setting}', but also {name}={table}; give only one of them.")
    return table


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in table.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in given.items()}

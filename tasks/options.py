"""The options of a run on a command line, and the layers of config that they stand for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data.errors import InputError
from trainers.names import TRAINERS

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
        "--trainer",
        metavar="NAME",
        help=f"{', '.join(TRAINERS)}, an installed one, or package.module:Class. [default: advanced]",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="gat, lightgcn, mf, an installed one, or package.module:Class. [default: gat]"
    ),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs at most. [default: 20]")]
PatienceOption = Annotated[
    int | None,
    typer.Option("--patience", metavar="N", min=1, help="Epochs without a better validation score before stopping."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the training. [default: 0]")]
BaselinesOption = Annotated[
    str | None,
    typer.Option(
        "--baselines",
        metavar="WHICH",
        help="What stands beside the result: none (popularity alone), fast, or all. [default: fast]",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", min=1, help="Train N models that differ by their seed only. [default: 1]"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the config, for example training.lr=0.005; may be repeated."
    ),
]


def training_tables(
    model: str | None,
    patience: int | None,
    seed: int | None,
    seeds: int | None,
    baselines: str | None,
    track_artists: str | None,
    preset: str | None,
) -> dict[str, Any]:
    """The part of a config that the options of a training run fill; None where an option was not given."""
    given = {"model": {"architecture": model}, "training": {"patience": patience, "seed": seed}}
    return {**given, "seeds": seeds, "baselines": baselines, **log_tables(track_artists, preset)}


def log_tables(track_artists: str | None, preset: str | None) -> dict[str, Any]:
    """The tables of a config that the options about the log fill; paths start where the person is."""
    path = str(Path(track_artists).expanduser().absolute()) if track_artists else None
    return {"ingest": {"track_artists": path}, "synthetic": {"preset": preset}}


def absolute_paths(events: list[str] | None) -> list[str] | None:
    """Files, folders and globs from where the person is, not from the project root."""
    return [str(Path(path).expanduser().absolute()) for path in events or []] or None


def overrides(tables: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """The tables with ``--set table.key=value`` laid over them, without what was not given.

    Raises:
        InputError: a setting is not of the form KEY=VALUE, or sets a key and a key below it.
    """
    return _without_none(_with_settings(tables, settings or []))


def print_error(error: InputError, console: Console) -> None:
    """The sentence that a command ends with, whole, so that it can be copied."""
    console.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


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

"""The options of a run on a command line: one table, from which every command and its help are made."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data.errors import InputError
from models.architectures import MODELS
from trainers.names import TRAINERS

SETTINGS = "--set"
"""Stands for the key of ``--set``, which may set any."""


def absolute(path: str) -> str:
    """Return a path, a folder or a glob that starts in the current folder, not in the project root."""
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class Option:
    """An option and the key of the config that it sets.

    Args:
        flag: as it is typed, for example ``--patience``.
        key: dotted, for example ``training.patience``; or a parameter of the flow, for example ``num_epochs``.
        help: one sentence, with the default.
        kind: type of the value; a list may be repeated, a bool is a switch.
        metavar: what stands for the value in the help.
        convert: what is done with a value that was given.
        least: the smallest number that is allowed.
    """

    flag: str
    key: str
    help: str
    kind: Any = str
    metavar: str | None = None
    convert: Callable[[Any], Any] = lambda value: value
    least: int | None = None

    @property
    def name(self) -> str:
        """Return the name of the option as a parameter of a function."""
        return self.flag.removeprefix("--").replace("-", "_")

    def parameter(self) -> inspect.Parameter:
        """Return the parameter from which Typer makes the option."""
        switch = self.kind is bool
        option = typer.Option(self.flag, metavar=self.metavar, min=self.least, help=self.help)
        kind: Any = self.kind if switch else self.kind | None
        default = False if switch else None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


LOG_OPTIONS = (
    Option(
        "--config", "config", "TOML file of the run, as in configs/; options below override it.", metavar="FILE"
    ),
    Option(
        "--events", "events", "Files, folders or globs of the log (Parquet, CSV, JSON lines); may be repeated.",
        list[str], "PATH", convert=lambda paths: [absolute(path) for path in paths] or None,
    ),
    Option(
        "--track-artists", "ingest.track_artists", "Table of track_id and artist_id, if the log has no artists.",
        metavar="PATH", convert=absolute,
    ),
    Option(
        "--preset", "synthetic.preset",
        "Size of the synthetic log, used without --events: tiny, small, medium, large.", metavar="SIZE",
    ),
    Option("--name", "name", "Name of the registered model. [default: songgraph]", metavar="NAME"),
    Option(
        "--set", SETTINGS, "Any key of the config, for example training.lr=0.005; may be repeated.",
        list[str], "KEY=VALUE",
    ),
)  # fmt: skip
TRAINING_OPTIONS = (
    Option(
        "--trainer", "trainer",
        f"{', '.join(TRAINERS)}, an installed one, or package.module:Class. [default: advanced]", metavar="NAME",
    ),
    Option(
        "--model", "model.architecture",
        f"{', '.join(MODELS)}, an installed one, or package.module:Class. [default: gat]", metavar="NAME",
    ),
    Option("--epochs", "num_epochs", "Epochs at most. [default: 20]", int, "N", least=1),
    Option(
        "--patience", "training.patience", "Epochs without a better validation score before stopping.", int, "N",
        least=1,
    ),
    Option("--seed", "training.seed", "Seed of the training. [default: 0]", int, "N"),
    Option(
        "--seeds", "seeds", "Train N models that differ by their seed only. [default: 1]", int, "N", least=1
    ),
    Option(
        "--baselines", "baselines", "What to compare with: none (popularity alone), fast, or all. [default: fast]",
        metavar="WHICH",
    ),
)  # fmt: skip
RUN_OPTIONS = (LOG_OPTIONS[0], *TRAINING_OPTIONS, *LOG_OPTIONS[1:])


def application(run: Callable[..., None], options: Iterable[Option], summary: str) -> typer.Typer:
    """Return a command line with these options that calls ``run(**given)``; see ``read_options`` for ``given``."""
    parameters = [option.parameter() for option in options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # from which Typer makes options
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help=summary)(run)
    return app


def read_options(options: Iterable[Option], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that were given, by the dotted key of their option, and the settings of ``--set``."""
    chosen = {option: given.get(option.name) for option in options}
    values = {option.key: option.convert(value) for option, value in chosen.items() if value not in (None, [])}
    return values, values.pop(SETTINGS, [])


def overrides(values: Mapping[str, Any], settings: Iterable[str] = ()) -> dict[str, Any]:
    """Return the tables of a config from dotted keys, with ``--set table.key=value`` laid over them.

    Raises:
        InputError: a setting is not of the form KEY=VALUE, or sets a key and a key below it.
    """
    tables: dict[str, Any] = {}
    for name, value in values.items():
        *path, key = name.split(".")
        _inner_table(tables, path, f"{name}={value}")[key] = value
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set was given '{setting}'; write KEY=VALUE, for example --set training.lr=0.005.")
        *path, key = name.strip().split(".")
        _inner_table(tables, path, setting)[key] = _toml_value(text.strip())
    return tables


def print_error(error: InputError, console: Console) -> None:
    """Print the sentence that a command ends with, whole, so that it can be copied."""
    console.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def _inner_table(tables: dict[str, Any], path: Iterable[str], setting: str) -> dict[str, Any]:
    for part in path:
        tables = tables.setdefault(part, {})
        if not isinstance(tables, dict):
            raise InputError(f"--set was given '{setting}', but also {part}={tables}; give only one of them.")
    return tables


def _toml_value(text: str) -> Any:
    """Return the value that TOML reads; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

"""``python -m registry``: what is registered, and why the champion is the champion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from data.errors import InputError
from registry.register import decision_of
from registry.store import CHAMPION, DIGEST_TAG, Store, Version

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode="rich", help="Look into the registry of models."
)

Name = Annotated[str, typer.Option(help="The registered model's name; `list` without it shows all.")]
Uri = Annotated[
    str | None,
    typer.Option(help="sqlite:///path or http(s)://host of an MLflow server.", show_default="the local registry"),
]


@app.command("list")
def list_versions(name: Name = "", uri: Uri = None) -> None:
    """Show the versions of a model, or of all models."""
    store = Store(uri)
    names = [name] if name else store.names()
    console = Console()
    for model in names:
        console.print(_table(model, store.versions(model), store.aliases(model)))
    if not names:
        console.print(f"Nothing is registered at {store.address} yet; `make train` registers a model.")


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="A version's number, or an alias such as champion.")],
    name: Name = "songgraph",
    uri: Uri = None,
) -> None:
    """Show one version: where it comes from, its numbers and the decision about it."""
    store = Store(uri)
    found = store.get(name, version)
    rows = Table("", Column(overflow="fold"), title=f"{name} {found.version}", show_header=False, box=box.SIMPLE)
    for key, text in _facts(found, store.aliases(name)).items():
        rows.add_row(key, text)
    console = Console()
    console.print(rows)
    if decision := decision_of(found):
        console.print_json(decision.model_dump_json())


def main() -> None:
    """Run the command; a person's error is one sentence and exit code 1."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def _table(name: str, versions: list[Version], aliases: dict[str, int]) -> Table:
    metric = Column("metric", no_wrap=True)
    table = Table("version", "alias", "registered", "trainer, log", metric, "decision", title=name, box=box.SIMPLE)
    for version in reversed(versions):
        decision = decision_of(version)
        names = ", ".join(alias for alias, number in aliases.items() if number == version.version)
        table.add_row(
            str(version.version),
            names,
            _time(version).replace(" ", "\n"),
            f"{version.tags.get('trainer', '')}\n{version.tags.get('source', '')}",
            _metric(version).replace(" [", "\n["),
            decision.outcome if decision else "undecided",
        )
    return table


def _facts(version: Version, aliases: dict[str, int]) -> dict[str, str]:
    decision = decision_of(version)
    return {
        "champion": "yes" if aliases.get(CHAMPION) == version.version else "no",
        "registered": _time(version),
        "metric": _metric(version),
        "decision": decision.reason if decision else "undecided: the registration was interrupted; run it again",
        "trainer": version.tags.get("trainer", ""),
        "log": version.tags.get("source", ""),
        "split": version.tags.get("split_digest", ""),
        "bundle": version.tags.get(DIGEST_TAG, ""),
        "run": version.run_id,
        "files": version.source,
    }


def _time(version: Version) -> str:
    return datetime.fromtimestamp(version.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _metric(version: Version) -> str:
    if "metric_interval" not in version.tags:
        return ""
    interval = json.loads(version.tags["metric_interval"])
    return f"{version.tags['metric']} {interval['mean']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


if __name__ == "__main__":
    main()

"""``python -m evaluation.audit``: look for leaks in a training graph, and in what a trainer makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from data.errors import InputError
from evaluation.audit.result import Audit, Canary

PROBE = "trainers.leakage_probe:TrainerProbe"
"""Found by name, since evaluation knows no trainers."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

GraphPath = Annotated[Path, typer.Argument(help="A training_graph.pt, or a graph without masks.")]
Folder = Annotated[
    Path | None, typer.Option(help="The ingest stage's folder: attributes are computed anew from its train rows.")
]
Trainer = Annotated[str, typer.Option(help="Whose training the canary watches; an empty name runs no canary.")]
Model = Annotated[str, typer.Option(help="Its architecture.")]
Source = Annotated[Path | None, typer.Option(help="A bundle whose weights the training starts from.")]
Output = Annotated[Path | None, typer.Option(help="Where to write the audit as JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of the canary: of its sample, what is planted, and the training.")]


@app.command()
def audit(
    path: GraphPath = Path("data/graph.pt"),
    listens: Folder = None,
    trainer: Trainer = "advanced",
    model: Model = "gat",
    warmed_from: Source = None,
    output: Output = None,
    seed: Seed = 0,
) -> None:
    """Look for held-out listens in whatever training can reach. Exit code 1 says that something leaks."""
    found = _audit(path, listens, trainer, model, warmed_from, seed)
    if output:
        found.write(output)
    _show(found, Console())
    found.require()


def main() -> None:
    """Run the command; a leak or a person's error is one sentence and exit code 1."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def _audit(path: Path, listens: Path | None, trainer: str, model: str, warmed_from: Path | None, seed: int) -> Audit:
    from data.graph import load_graph
    from evaluation.audit.auditor import audit_graph, read_listens

    graph = load_graph(path)
    rows = read_listens(listens) if listens else None
    return audit_graph(graph, rows, _probe(trainer, model, seed) if trainer else None, warmed_from, seed)


def _probe(trainer: str, model: str, seed: int) -> Any:
    from data.code.lookup import find_class
    from evaluation.audit.planting import Probe

    return find_class("probe", PROBE, {}, Probe)(trainer, {"architecture": model}, {"seed": seed})


def _show(found: Audit, console: Console) -> None:
    table = Table(Column("check", no_wrap=True), "", "what was found", title="audit", box=box.SIMPLE)
    for check in found.checks:
        table.add_row(check.name, _verdict(check.passed), check.says)
    if found.canary:
        table.add_row("canary", _verdict(found.canary.passed), f"{found.canary.says} {_extent(found.canary)}")
    console.print(table)
    for line in found.cannot_say:
        console.print(f"Cannot say: {line}", highlight=False)


def _extent(canary: Canary) -> str:
    return (
        f"({canary.planted:,} pairs planted; sample of {canary.users:,} users, {canary.songs:,} songs, "
        f"{canary.pairs:,} pairs; seed {canary.seed})"
    )


def _verdict(passed: bool) -> str:
    return "clean" if passed else "LEAK"


if __name__ == "__main__":
    main()

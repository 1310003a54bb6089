"""``python -m evaluation.audit``: look for leaks in a training graph, and in the training of a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from data.errors import InputError
from evaluation.audit.result import Audit

PROBE = "trainers.leakage_probe:TrainerProbe"
"""The probe is found by name, since evaluation may not import trainers."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

GraphPath = Annotated[Path, typer.Argument(help="A training_graph.pt, or a graph without masks.")]
Folder = Annotated[
    Path | None, typer.Option(help="Folder of the ingest stage: compute attributes again from its train rows.")
]
Trainer = Annotated[str, typer.Option(help="The trainer that the canary runs; an empty name runs no canary.")]
Model = Annotated[str, typer.Option(help="The architecture that the canary trains.")]
Source = Annotated[Path | None, typer.Option(help="The bundle that the training starts from.")]
Output = Annotated[Path | None, typer.Option(help="Where to write the audit as JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of the canary: of its sample, the planted pairs, and the training.")]


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
    """Look for held-out listens in everything that training can reach. Exit code 1: something leaks."""
    from data.graph import load_graph
    from evaluation.audit.auditor import audit_graph, read_listens

    graph = load_graph(path)
    rows = read_listens(listens) if listens else None
    probe = _create_probe(trainer, model, seed) if trainer else None
    found = audit_graph(graph, rows, probe, warmed_from, seed)
    if output:
        found.write(output)
    _show(found, Console())
    found.require()


def main() -> None:
    """Run the command; a leak or a wrong input is one sentence and exit code 1."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def _create_probe(trainer: str, model: str, seed: int) -> Any:
    from data.code.lookup import find_class
    from evaluation.audit.planting import Probe

    return find_class("probe", PROBE, {}, Probe)(trainer, {"architecture": model}, {"seed": seed})


def _show(found: Audit, console: Console) -> None:
    table = Table(Column("check", no_wrap=True), "", "what was found", title="audit", box=box.SIMPLE)
    for check in found.checks:
        table.add_row(check.name, _verdict(check.passed), check.says)
    if canary := found.canary:
        size = (
            f"({canary.planted:,} pairs planted; sample of {canary.users:,} users, {canary.songs:,} songs, "
            f"{canary.pairs:,} pairs; seed {canary.seed})"
        )
        table.add_row("canary", _verdict(canary.passed), f"{canary.says} {size}")
    console.print(table)
    for line in found.cannot_say:
        console.print(f"Cannot say: {line}", highlight=False)


def _verdict(passed: bool) -> str:
    return "clean" if passed else "LEAK"


if __name__ == "__main__":
    main()

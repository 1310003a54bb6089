"""``python -m registry``: shows what is registered and why, and moves the champion."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from data.errors import InputError
from registry.audit_log import AuditRecord, decision_of, reconcile_if_idle, records
from registry.backend.client import RegistryClient
from registry.views import decision_table, facts_table, metrics_table, paired_lines, records_table, versions_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look into the registry of models, and move the champion.",
)

AnyName = Annotated[str, typer.Option("--name", help="The registered model's name; all models without it.")]
Name = Annotated[str, typer.Option(help="The registered model's name.")]
Uri = Annotated[
    str | None,
    typer.Option(help="sqlite:///path or http(s)://host of an MLflow server.", show_default="the local registry"),
]
Which = Annotated[str, typer.Argument(metavar="VERSION", help="A version's number, or an alias such as champion.")]
Why = Annotated[str, typer.Option(help="The reason; it is kept for ever.")]


@app.command("list")
def list_versions(name: AnyName = "", uri: Uri = None) -> None:
    """Show the versions of a model, or of all models."""
    client, console = RegistryClient(uri), Console()
    for model in _models(client, name):
        reconcile_if_idle(client, model)
        console.print(versions_table(model, client.versions(model), client.aliases(model)))


@app.command()
def show(version: Which, name: Name = "songgraph", uri: Uri = None) -> None:
    """Show one version: its origin, its metric, its records and the decision about it."""
    client, console = RegistryClient(uri), Console()
    reconcile_if_idle(client, name)
    found = client.get(name, version)
    console.print(facts_table(found, client.aliases(name)))
    if about := [record for record in records(client, name) if found.version in (record.version, record.before)]:
        console.print(records_table("records", about))
    if decision := decision_of(found):
        console.print(decision_table(decision))


@app.command()
def history(name: Name = "songgraph", uri: Uri = None) -> None:
    """Show every decision and every move of the champion, newest first."""
    client = RegistryClient(uri)
    client.versions(name)
    reconcile_if_idle(client, name)
    Console().print(records_table(name, records(client, name)))


@app.command()
def compare(
    version: Which,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The version to compare it with.")],
    name: Name = "songgraph",
    uri: Uri = None,
) -> None:
    """Show the metrics of two versions, and what the gate finds on the same users."""
    from evaluation.record import EvaluationRecord
    from registry.champion import verified_manifest
    from registry.gate.decide import decide

    client, console = RegistryClient(uri), Console()
    first, second = client.get(name, version), client.get(name, other)
    with ExitStack() as opened:
        ours, theirs = (opened.enter_context(client.bundles.folder(found)) for found in (first, second))
        for found in (first, second):
            verified_manifest(client, found)
        read = [EvaluationRecord.read(folder / "metrics.json") for folder in (ours, theirs)]
        console.print(metrics_table(first, second, *read))
        for line in paired_lines(first, second, decide(ours, second.version, theirs)):
            console.print(Text(line), highlight=False)


@app.command()
def promote(
    version: Which,
    why: Why,
    name: Name = "songgraph",
    force: Annotated[
        str | None,
        typer.Option(help="The reason to overrule the gate, for a rejected, in-sample or undecided version."),
    ] = None,
    uri: Uri = None,
) -> None:
    """Make a version champion; its whole bundle is verified first."""
    from registry.champion import promote as promote_version

    _print_move(promote_version(RegistryClient(uri), name, version, why, force), name)


@app.command()
def rollback(
    why: Why,
    name: Name = "songgraph",
    to: Annotated[
        str | None,
        typer.Option(help="Another former champion.", show_default="the champion before the present one"),
    ] = None,
    uri: Uri = None,
) -> None:
    """Make the former champion champion again; its whole bundle is verified first."""
    from registry.champion import rollback as roll_back

    _print_move(roll_back(RegistryClient(uri), name, why, to), name)


@app.command()
def verify(
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="A version's number or an alias.")] = "",
    name: AnyName = "",
    users: Annotated[int, typer.Option(min=1, help="Users of each version whose lists are computed again.")] = 50,
    uri: Uri = None,
) -> None:
    """Hash every file of all versions, or of one, and score a sample of users again."""
    from registry.verification import verify_version

    client, problems = RegistryClient(uri), []
    for model in _models(client, name or ("songgraph" if version else "")):
        for found in [client.get(model, version)] if version else client.versions(model):
            checked = verify_version(client, found, users)
            sound = f"{checked.files} files, {decimal(checked.num_bytes)}; lists of {checked.users} users scored again"
            typer.echo(f"{model} {found.version}: {checked.problem or f'sound ({sound})'}")
            problems += [f"{model} {found.version}"] if checked.problem else []
    if problems:
        raise InputError(f"Not sound: {', '.join(problems)}.")


@app.command()
def prune(
    keep: Annotated[int, typer.Option(help="How many of the newest versions to keep, whatever their age.")],
    older_than: Annotated[float, typer.Option(help="Days; younger versions are kept, whatever their number.")],
    name: Name = "songgraph",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    uri: Uri = None,
) -> None:
    """Delete old versions and their files; never one that is or was champion."""
    from registry.retention import prune as prune_versions
    from registry.retention import removable

    chosen = (removable if dry_run else prune_versions)(RegistryClient(uri), name, keep, older_than)
    numbers = ", ".join(str(removal.version.version) for removal in chosen) or "none"
    verb = "Would delete" if dry_run else "Deleted"
    typer.echo(f"{verb} versions of {name}: {numbers} ({decimal(sum(removal.num_bytes for removal in chosen))}).")


def main() -> None:
    """Run the command; a person's error is one sentence and exit code 1."""
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def _models(client: RegistryClient, name: str) -> list[str]:
    names = [name] if name else client.names()
    if not names:
        typer.echo(f"Nothing is registered at {client.address} yet; `make train` registers a model.")
    return names


def _print_move(record: AuditRecord, name: str) -> None:
    forced = f", forced: {record.forced}" if record.forced else ""
    typer.echo(f"The champion of {name} is version {record.after}; it was {record.before or 'none'}{forced}.")


if __name__ == "__main__":
    main()

"""A search of hyper-parameters: a config in, a better config out. ``python -m flows.tune --help``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from rich.console import Console

from flows.command_line import ending_in_a_sentence, own_server
from flows.quiet import bad_input_in_a_sentence, leave_quietly, quiet_prefect
from flows.tune_summary import print_search
from tasks.check import refuse_early
from tasks.options import (
    ConfigOption,
    EpochsOption,
    EventsOption,
    ModelOption,
    NameOption,
    PatienceOption,
    PresetOption,
    SeedOption,
    SetOption,
    TrackArtistsOption,
    TrainerOption,
    absolute_paths,
    overrides,
    training_tables,
)
from tasks.run_config import load_run_config
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.split import split
from tasks.tune import refuse_search, search
from tasks.tune_graph import validation_graph
from tasks.tune_winner import refuse_existing, source_tables, winner_path, write_winner

TrialsOption = Annotated[
    int | None,
    typer.Option("--trials", metavar="N", min=1, help="Trials in all, finished ones of this search counted. [30]"),
]
SearchOption = Annotated[
    str | None,
    typer.Option("--search", metavar="KEYS", help="Search these keys only, for example lr,temperature."),
]
PrunerOption = Annotated[
    str | None, typer.Option("--pruner", metavar="NAME", help="median, hyperband or none. [default: median]")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", metavar="N", min=1, help="Trials at once. [default: half of the cores]")
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", metavar="FILE", help="Where the winner goes. [default: configs/NAME-tuned.toml]"),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


@flow(name="tune", persist_result=True, result_serializer="json")
@bad_input_in_a_sentence
def tune(
    config: str | None = None,
    name: str | None = None,
    trainer: str | None = None,
    num_epochs: int | None = None,
    events: str | list[str] | None = None,
    overrides: dict[str, Any] | None = None,
    jobs: int | None = None,
    output: str | None = None,
    force: bool = False,
) -> State:
    """Try other values for a config's keys, choose on validation alone, and write the best as a config file.

    Args:
        config, name, trainer, num_epochs, events, overrides: those of ``flows.train``.
        jobs: trials at once; half as many as there are cores unless given.
        output: the file for the winner, from the project's root; ``configs/<name>-tuned.toml`` unless given.
        force: whether that file may be replaced.
    """
    layers = (overrides, {"name": name, "trainer": trainer, "num_epochs": num_epochs})
    run = load_run_config(config, *layers, events=events)
    path = winner_path(run, output)
    refuse_existing(path, force)
    space = refuse_search(run)
    log = find_log(run)
    listens = ingest(run, log)
    graph = build_graph(run, listens)
    training_graph = split(run, graph, listens)
    study = search(space, validation_graph(run, training_graph), jobs)
    write_winner(path, source_tables(config, *layers, events=events), study, force)
    told = {"tried": [asdict(tried) for tried in study.tried()], "start": study.space.start}
    return Completed(data={**told, "importances": study.importances(), "output": str(path)})


def main(
    config: ConfigOption = None,
    trials: TrialsOption = None,
    search: SearchOption = None,
    jobs: JobsOption = None,
    output: OutputOption = None,
    force: ForceOption = False,
    pruner: PrunerOption = None,
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
    """Parse the command line, search in this process, and print what was found."""
    searched = [key.strip() for key in search.split(",") if key.strip()] if search else None
    tables = training_tables(model, patience, seed, None, None, track_artists, preset)
    tables["tune"] = {"trials": trials, "search": searched, "pruner": pruner}
    with ending_in_a_sentence(Console(stderr=True)):
        laid_over, paths = overrides(tables, settings), absolute_paths(events)
        given = {"trainer": trainer, "num_epochs": epochs, "name": name}
        refuse_early(load_run_config(config, laid_over, given, events=paths))
        output = str(Path(output).expanduser().absolute()) if output else None
        with quiet_prefect(), own_server():
            arguments = {"config": config, "events": paths, "overrides": laid_over, **given}
            state: State[Any] = tune(**arguments, jobs=jobs, output=output, force=force, return_state=True)
            found = state.result()
        print_search(found, Console())


def application() -> typer.Typer:
    """The command line of the search."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help=(tune.fn.__doc__ or "").partition("\n\n")[0])(main)
    return app


if __name__ == "__main__":
    leave_quietly()
    application()()

"""A search of hyper-parameters: a config in, a better config out. ``python -m flows.tune --help``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.command_line import command
from flows.lifecycle import start
from flows.tune_summary import print_search
from tasks.options import RUN_OPTIONS, Option, absolute
from tasks.pipeline import pipeline, until
from tasks.stages.validation import validation_graph
from tasks.tuning.search import refuse_search, search
from tasks.tuning.winner import refuse_existing, source_tables, winner_path, write_winner

SEARCH_OPTIONS = (
    Option(
        "--trials", "tune.trials", "Trials in all, finished ones of this search counted. [30]", int, "N", least=1
    ),
    Option(
        "--search", "tune.search", "Search these keys only, for example lr,temperature.", metavar="KEYS",
        convert=lambda keys: [key.strip() for key in keys.split(",") if key.strip()],
    ),
    Option("--jobs", "jobs", "Trials at once. [default: half of the cores]", int, "N", least=1),
    Option(
        "--output", "output", "Where the winner goes. [default: configs/NAME-tuned.toml]", metavar="FILE",
        convert=absolute,
    ),
    Option("--force", "force", "Replace the output if it exists.", bool),
    Option("--pruner", "tune.pruner", "median, hyperband or none. [default: median]", metavar="NAME"),
)  # fmt: skip
NOT_SEARCHED = ("--seeds", "--baselines")
OPTIONS = (*RUN_OPTIONS[:1], *SEARCH_OPTIONS, *(one for one in RUN_OPTIONS[1:] if one.flag not in NOT_SEARCHED))


@flow(name="tune", persist_result=True, result_serializer="json")
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
    given = {"name": name, "trainer": trainer, "num_epochs": num_epochs}
    run = start(config, name, trainer, num_epochs, events, overrides)
    path = winner_path(run.config, output)
    refuse_existing(path, force)
    space = refuse_search(run.config)
    *_, training_graph = until("split", pipeline(run))
    study = search(space, validation_graph(run, training_graph), jobs)
    write_winner(path, source_tables(config, overrides, given, events=events), study, force)
    trials = [asdict(result) for result in study.results()]
    return Completed(data={"trials": trials, "importances": study.importances(), "output": str(path)})


if __name__ == "__main__":
    command(tune, OPTIONS, show=print_search)()

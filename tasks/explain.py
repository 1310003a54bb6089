"""What a run would do, before it does it: ``python -m tasks.explain --config configs/synthetic.toml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from data.errors import InputError
from tasks.cache.key import KeyParts
from tasks.cache.ref import Files, Ref
from tasks.cache.stage import Stage, executor
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
    overrides,
    print_error,
    training_tables,
)
from tasks.run_config import RunConfig, load_run_config
from tasks.stages.audit import audit
from tasks.stages.baselines import fit_baselines
from tasks.stages.evaluate import evaluate_models
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.refit import refit
from tasks.stages.register import register
from tasks.stages.report import write_report
from tasks.stages.seeds import compare_seeds
from tasks.stages.split import split
from tasks.stages.train import train_models
from tasks.stages.warm_start import KEY, find_start

STAGES = (
    "ingest", "graph", "split", "start", "audit", "train", "baselines", "evaluate", "seeds", "refit", "register",
    "report",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What will happen to one stage, and why."""

    stage: str
    verdict: str
    why: str = ""


class _WillRun(Exception):  # noqa: N818  (no error: the answer was found)
    """Ends the look-up: what comes after depends on what is in a result that is not there yet."""


@dataclass(frozen=True)
class _Pending(Ref):
    """What a stage will give once it has run: others can be told to wait for it, but nobody can look into it."""

    stage: str = ""

    @property
    def value(self) -> Path:
        raise _WillRun


def explain(run: RunConfig) -> list[Verdict]:
    """One verdict a stage: cached, will run (and which parts of its key changed), or depends on an earlier one."""
    verdicts: list[Verdict] = []
    try:
        with _looking_up(verdicts):
            _go_through(run)
    except _WillRun:
        known = {verdict.stage for verdict in verdicts}
        waiting = next(verdict.stage for verdict in reversed(verdicts) if verdict.verdict == "will run")
        later = [Verdict(stage, "depends", f"on {waiting}") for stage in stages_of(run) if stage not in known]
        return verdicts + later
    return verdicts


def _go_through(run: RunConfig) -> None:
    """The stages of ``flows.train``, in its order."""
    log = find_log(run)
    listens = ingest(run, log)
    graph = build_graph(run, listens)
    training_graph = split(run, graph, listens)
    start = find_start(run, training_graph)
    audited = audit(run, training_graph, graph, listens, start)
    models = train_models(run, training_graph, graph, start)
    baselines = fit_baselines(run, training_graph, graph, models[0])
    evaluations = evaluate_models(run, models, training_graph, graph, baselines)
    seeds = compare_seeds(run, evaluations)
    refitted = refit(run, models[0], graph, start)
    version = register(run, log, models[0], evaluations[0], training_graph, graph, audited, seeds, refitted, start)
    write_report(run, listens, graph, training_graph, models[0], evaluations[0], baselines, version, seeds)


def stages_of(run: RunConfig) -> list[str]:
    """The stages that a run goes through, in order, with one word for all baselines."""
    asked = {"start": KEY in run.training, "seeds": run.seeds > 1, "refit": run.refit}
    return [stage for stage in STAGES if asked.get(stage, True)]


@contextmanager
def _looking_up(verdicts: list[Verdict]) -> Iterator[None]:
    """Within, stages are looked up and not run; whoever looks into a result that is not there raises _WillRun."""

    def look_up(
        stage: Stage, run: RunConfig, config: dict[str, Any], parts: KeyParts, inputs: dict[str, Ref | Files]
    ) -> Ref:
        ref, verdict = _verdict(stage, run, parts, inputs)
        verdicts.append(verdict)
        return ref or _Pending("", "", stage=stage.name)

    token = executor.set(look_up)
    try:
        yield
    finally:
        executor.reset(token)


def _verdict(
    stage: Stage, run: RunConfig, parts: KeyParts, inputs: Mapping[str, Ref | Files]
) -> tuple[Ref | None, Verdict]:
    waiting = [ref.stage for ref in inputs.values() if isinstance(ref, _Pending)]
    if waiting:
        return None, Verdict(stage.name, "depends", f"on {waiting[0]}")
    ref, problem = stage.look_up(parts)
    if ref is None:
        return None, Verdict(stage.name, "will run", stage.why(parts, problem, run.remembered_as))
    return ref, Verdict(stage.name, "cached")


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
    """Say for each stage: cached, will run and which part of its key changed, or depends on an earlier one."""
    tables = training_tables(model, patience, seed, seeds, baselines, track_artists, preset)
    given = {"trainer": trainer, "num_epochs": epochs, "name": name}
    try:
        paths = absolute_paths(events)
        run = load_run_config(config, overrides(tables, settings), given, events=paths)
        refuse_early(run)
        verdicts = explain(run)
    except InputError as error:
        print_error(error, Console(stderr=True))
        raise SystemExit(2) from None
    table = Table("stage", "verdict", "why", box=None, header_style="bold")
    for verdict in verdicts:
        table.add_row(verdict.stage, verdict.verdict, verdict.why)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

"""The diagram of a run: every stage and what it takes, top to bottom.

Training, evaluating, building a graph, explaining and searching are this chain, run up to a stage or by another kind of
``Run``. A new stage has two places: its file in ``tasks/stages/``, and its lines here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tasks.cache.ref import Ref
from tasks.run import Run
from tasks.run_config import RunConfig
from tasks.stages.audit import audit
from tasks.stages.baselines import fit_baselines
from tasks.stages.evaluate import evaluate_models
from tasks.stages.graph import build_graph, publish_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.refit import refit
from tasks.stages.register import register
from tasks.stages.report import publish_report, write_report
from tasks.stages.seeds import compare_seeds
from tasks.stages.split import split
from tasks.stages.train import train_models
from tasks.stages.warm_start import KEY, find_warm_start


def pipeline(run: Run) -> Iterator[Ref | None]:
    """Yield the result of each stage as soon as it is there; None for a stage that the run does not ask for."""
    log = find_log(run)
    yield (listens := ingest(run, log))
    graph = build_graph(run, listens)
    run.publish(publish_graph, graph)
    yield graph
    yield (training_graph := split(run, graph, listens))
    yield (earlier := find_warm_start(run, training_graph))
    yield (audited := audit(run, training_graph, graph, listens, earlier))
    yield from (models := train_models(run, training_graph, graph, earlier))
    yield from (baselines := fit_baselines(run, training_graph, graph, models[0])).values()
    yield from (evaluations := evaluate_models(run, models, training_graph, graph, baselines))
    yield (seeds := compare_seeds(run, evaluations))
    yield (refitted := refit(run, models[0], graph, earlier))
    model = (models[0], evaluations[0])  # of the first seed: chosen before anything is measured
    yield (version := register(run, log, *model, training_graph, graph, audited, seeds, refitted, earlier))
    report = write_report(run, listens, graph, training_graph, *model, baselines, version, seeds)
    run.publish(publish_report, report)
    yield report


STAGES = (
    "ingest", "graph", "split", "warm-start", "audit", "train", "baselines", "evaluate", "seeds", "refit", "register",
    "report",
)  # fmt: skip
"""The same as names, for what is not run yet, with one word for all baselines."""


def until(stage: str, results: Iterable[Ref | None]) -> Iterator[Ref]:
    """Yield the results of a pipeline up to and with those of one stage; what comes after does not run."""
    for ref in results:
        if ref is not None:
            yield ref
            if ref.stage == stage:
                return


def stages_of(config: RunConfig) -> list[str]:
    """Return the stages that a run of this config goes through, in order."""
    asked = {"warm-start": KEY in config.training, "seeds": config.seeds > 1, "refit": config.refit}
    return [stage for stage in STAGES if asked.get(stage, True)]

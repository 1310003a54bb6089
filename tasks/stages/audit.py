"""The audit stage: looks for held-out listens in all that the trainer can reach, and refuses to train on a leak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.check import chosen_modules
from tasks.run import Run
from tasks.stages.warm_start import bundle_of, without_warm_start


def _audit(
    folder: Path,
    config: Mapping[str, Any],
    training_graph: Path,
    graph: Path,
    listens: Path,
    warm_start: Path | None = None,
) -> Mapping[str, Any]:
    from data.graph import load_graph
    from evaluation.audit.auditor import audit_graph, read_listens
    from trainers.leakage_probe import TrainerProbe

    probe = TrainerProbe(config["trainer"], config["model"], config["training"])
    divided = load_graph(training_graph / "training_graph.pt")
    earlier = None if probe.trains_on_everything else bundle_of(warm_start)
    found = audit_graph(divided, read_listens(listens), probe, earlier, seed=config["training"].get("seed", 0))
    if probe.trains_on_everything:
        found = found.with_unknowns(audit_graph(load_graph(graph / "graph.pt")).cannot_say)
    found.require()
    found.write(folder / "audit.json")
    return {"checks": len(found.checks), "canary": found.canary.says if found.canary else "not run"}


AUDIT = Stage("audit", 1, _audit, code=("evaluation.audit.auditor", "trainers.leakage_probe"))


def audit(run: Run, training_graph: Ref, graph: Ref, listens: Ref, earlier: Ref | None = None) -> Ref:
    """Audit the training graph and the run's trainer on it; the folder holds ``audit.json``.

    Args:
        graph: the whole graph, which is what a trainer that trains on everything reads.
        earlier: the model from which the training starts; it must have seen nothing that is held out now.

    Raises:
        InputError: something leaks; every leak is named.
    """
    config = run.config.model_dump(mode="json", include={"trainer", "model", "training"})
    config["training"] = without_warm_start(config["training"])
    inputs = {"training_graph": training_graph, "graph": graph, "listens": listens, "warm_start": earlier}
    return run.execute(AUDIT, config, code=chosen_modules(run.config), **inputs)

"""The baselines that stand beside a result, each a stage of its own: the same split never fits one twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.baselines.factory import BASELINES, CHOICES, baseline_module
from tasks.config import RunConfig
from tasks.evaluate import evaluation_config
from tasks.ref import Ref
from tasks.stage import Stage
from tasks.train import trained_on_everything

NEEDS_TIMES = ("recent-popularity",)
"""Left out where the log has no times."""


def _fit(folder: Path, config: Mapping[str, Any], training_graph: Path, graph: Path, name: str) -> Mapping[str, Any]:
    from data.graph import load_graph
    from evaluation.baselines.factory import create_baseline
    from evaluation.results import write_results

    divided = load_graph(training_graph / "training_graph.pt")
    score = create_baseline(name).fit(divided)
    # an empty mapping: a baseline has no further baseline beside it
    record = write_results(score, divided, graph, folder, part="test", baselines={}, **config)
    return {"users": record.num_users, record.watched: record.metrics[record.watched].mean}


STAGES = {
    name: Stage(f"baseline-{name}", 1, partial(_fit, name=name), code=(baseline_module(name), "evaluation.results"))
    for name in BASELINES
}


def fit_baselines(run: RunConfig, training_graph: Ref, graph: Ref, model: Ref) -> dict[str, Ref]:
    """Fit and measure the baselines that the run asks for, on the users and pairs of the model's evaluation.

    A model that has trained on everything has none: popularity alone stands beside its in-sample numbers.

    Args:
        graph: the folder with the vocabularies.
        model: whose result they stand beside.

    Returns:
        by name, the folder that ``evaluation.results.write_results`` describes.
    """
    if trained_on_everything(model.value):
        return {}
    config = evaluation_config(run)
    inputs = {"training_graph": training_graph, "graph": graph}
    return {name: STAGES[name](run, config, **inputs) for name in CHOICES[run.baselines] if _applies(name, graph)}


def _applies(name: str, graph: Ref) -> bool:
    """Whether the log has what the baseline needs; asked without loading the graph."""
    profile = json.loads((graph.value / "profile.json").read_text(encoding="utf-8"))
    return name not in NEEDS_TIMES or profile["first_day"] is not None

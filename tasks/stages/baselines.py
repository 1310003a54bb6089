"""The baselines that stand beside a result, each a stage of its own: the same split never fits one twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.baselines.choices import BASELINES, CHOICES, baseline_module
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.run_config import RunConfig
from tasks.stages.evaluate import evaluation_config
from tasks.stages.train import trained_on_everything

logger = logging.getLogger(__name__)

LEFT_OUT = "left_out.json"
"""Instead of a result: why the log has nothing for the baseline to learn from."""


def _fit(folder: Path, config: Mapping[str, Any], training_graph: Path, graph: Path, name: str) -> Mapping[str, Any]:
    from data.graph import load_graph
    from evaluation.baselines.choices import create_baseline
    from evaluation.result_files import EvaluationProtocol, write_results

    divided, baseline = load_graph(training_graph / "training_graph.pt"), create_baseline(name)
    write_json(folder / "baseline.json", {"name": name, "parameters": baseline.model_dump(mode="json")})
    if why := baseline.why_not(divided):
        logger.warning("The baseline %s is left out: %s", name, why)
        write_json(folder / LEFT_OUT, {"why": why})
        return {"left out": why}
    # an empty mapping: a baseline has no further baseline beside it
    protocol = EvaluationProtocol(part="test", **{key: value for key, value in config.items() if key != "implicit"})
    record = write_results(baseline.fit(divided), divided, graph, folder, protocol, baselines={})
    return {"users": record.num_users, record.watched: record.metrics[record.watched].mean}


STAGES = {
    name: Stage(
        f"baseline-{name}", 2, partial(_fit, name=name), code=(baseline_module(name), "evaluation.result_files")
    )
    for name in BASELINES
}


def fit_baselines(run: RunConfig, training_graph: Ref, graph: Ref, model: Ref) -> dict[str, Ref]:
    """Fit and measure the baselines that the run asks for, on the users and pairs of the model's evaluation.

    A model that has trained on everything has none: popularity alone stands beside its in-sample numbers. One for which
    the log has nothing (no times, say) is left out, and the log of the run says why.

    Args:
        graph: the folder with the vocabularies.
        model: whose result they stand beside.

    Returns:
        by name, the folder that ``evaluation.result_files.write_results`` describes, with ``baseline.json``: its
        parameters.
    """
    if trained_on_everything(model.value):
        return {}
    fitted = {name: fit_baseline(name, run, training_graph, graph) for name in CHOICES[run.baselines]}
    return {name: ref for name, ref in fitted.items() if not (ref.value / LEFT_OUT).exists()}


def fit_baseline(name: str, run: RunConfig, training_graph: Ref, graph: Ref) -> Ref:
    """One baseline's folder: its result, or ``left_out.json`` with the reason why it has none."""
    config = {**evaluation_config(run), "implicit": version("implicit")}
    return STAGES[name](run, config, training_graph=training_graph, graph=graph)

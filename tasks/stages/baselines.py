"""The stages of the baselines, one each, so that the same split never fits one twice."""

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
from tasks.run import Run
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
    # no baseline is compared with other baselines
    protocol = EvaluationProtocol(part="test", **{key: value for key, value in config.items() if key != "implicit"})
    record = write_results(baseline.fit(divided), divided, graph, folder, protocol, baselines={})
    return {"users": record.num_users, record.watched: record.metrics[record.watched].mean}


STAGES = {
    name: Stage(
        f"baseline-{name}", 2, partial(_fit, name=name), code=(baseline_module(name), "evaluation.result_files")
    )
    for name in BASELINES
}


def fit_baselines(run: Run, training_graph: Ref, graph: Ref, model: Ref) -> dict[str, Ref]:
    """Fit and measure the baselines that the run asks for, on the users and pairs of the model's evaluation.

    A model that has trained on everything has none: its in-sample numbers are compared with popularity alone. A
    baseline is left out, and the run's log says why, if the listens lack what it needs (times, say).

    Args:
        graph: the folder with the vocabularies.
        model: the one that they are compared with.

    Returns:
        by name, the folder that ``evaluation.result_files.write_results`` describes, with ``baseline.json``: its
        parameters.
    """
    if trained_on_everything(model.value):
        return {}
    fitted = {name: fit_baseline(name, run, training_graph, graph) for name in CHOICES[run.config.baselines]}
    return {name: ref for name, ref in fitted.items() if not (ref.value / LEFT_OUT).exists()}


def fit_baseline(name: str, run: Run, training_graph: Ref, graph: Ref) -> Ref:
    """Fit one baseline; its folder holds the result, or ``left_out.json`` with the reason why there is none."""
    config = {**evaluation_config(run.config), "implicit": version("implicit")}
    return run.execute(STAGES[name], config, training_graph=training_graph, graph=graph)

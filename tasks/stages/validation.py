"""The validation stage: the graph that a search works on, the training graph without its test listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run

VALIDATION_GRAPH = "validation_graph.pt"


def _without_test(folder: Path, config: Mapping[str, Any], training_graph: Path) -> Mapping[str, Any]:
    from data.graph import graph_counts, load_graph, save_graph
    from data.training_graph import without_test

    graph = without_test(load_graph(training_graph / "training_graph.pt"))
    save_graph(graph, folder / VALIDATION_GRAPH)
    return graph_counts(graph)


VALIDATION = Stage("validation", 1, _without_test, code=("data.training_graph",))


def validation_graph(run: Run, training_graph: Ref) -> Ref:
    """Take the test listens out, so that no trial can look at them."""
    return run.execute(VALIDATION, {}, training_graph=training_graph)

"""The split stage: marks every listen train, validation or test; what a trainer reads comes from train rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.result_store import read_stage_manifest
from tasks.cache.stage import Stage
from tasks.run import Run


def _split(folder: Path, config: Mapping[str, Any], graph: Path, listens: Path) -> Mapping[str, Any]:
    import json

    import pyarrow.parquet as pq

    from data.graph import load_graph, save_graph
    from data.split import SplitConfig
    from data.training_graph import split_counts, split_days, split_digest, split_graph

    rows = pq.read_table(listens / "listens.parquet")
    cut_of_the_filters = json.loads((listens / "counts.json").read_text(encoding="utf-8"))["cut"]
    chosen = SplitConfig.parse(config, "split").with_cut(cut_of_the_filters)
    training_graph = split_graph(load_graph(graph / "graph.pt"), chosen, rows)
    save_graph(training_graph, folder / "training_graph.pt")
    days_and_digest = {**split_days(training_graph), "split_digest": split_digest(training_graph)}
    return {**split_counts(training_graph), **days_and_digest}


SPLIT = Stage("split", 2, _split, code=("data.training_graph",))


def decided_split(config: Mapping[str, Any], training_graph: Path) -> dict[str, Any]:
    """Return the split's config with the days that a temporal split decided on this log: what a model has seen."""
    counts = read_stage_manifest(training_graph)["counts"]
    return {**config, **{key: counts[key] for key in ("val_from", "test_from") if key in counts}}


def split(run: Run, graph: Ref, listens: Ref) -> Ref:
    """Divide the graph's listens by the run's strategy and ratios."""
    return run.execute(SPLIT, run.config.split.model_dump(mode="json"), graph=graph, listens=listens)

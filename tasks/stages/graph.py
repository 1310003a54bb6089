"""The graph stage: the listens become the graph of users, songs and artists, published at ``data/graph.pt`` too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.project import artifacts_folder, project_root
from tasks.cache.file_digests import digest_files
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.run import Run
from tasks.run_config import RunConfig

VOCABULARIES = ("users.parquet", "songs.parquet", "artists.parquet")


def _build(folder: Path, config: Mapping[str, Any], listens: Path) -> Mapping[str, Any]:
    from data.graph import build_graph as build
    from data.graph import graph_counts, save_graph
    from data.profile import graph_profile
    from data.weights import WeightConfig

    graph = build(listens, WeightConfig.parse(config, "weights"))
    save_graph(graph, folder / "graph.pt")
    for name in VOCABULARIES:
        shutil.copyfile(listens / name, folder / name)
    write_json(folder / "profile.json", graph_profile(graph, listens))
    return graph_counts(graph)


GRAPH = Stage("graph", 2, _build, code=("data.graph", "data.profile"))


def build_graph(run: Run, listens: Ref) -> Ref:
    """Build the graph; its folder also holds the vocabularies (row number = node index) and the profile."""
    return run.execute(GRAPH, run.config.weights.model_dump(mode="json"), listens=listens)


def publish_graph(config: RunConfig, graph: Ref) -> None:
    """Make ``data/graph.pt`` a copy of the stored graph, in one move, unless it already is one."""
    stored = graph.value / "graph.pt"
    latest = project_root() / "data" / "graph.pt"
    memory = artifacts_folder() / "file_digests.json"
    if latest.exists() and digest_files([latest], memory).sha256 == digest_files([stored], memory).sha256:
        return
    latest.parent.mkdir(parents=True, exist_ok=True)
    partial = latest.with_name(f".graph.pt.{os.getpid()}")
    shutil.copyfile(stored, partial)
    partial.replace(latest)

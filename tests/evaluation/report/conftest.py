"""The folders of small runs, written by the code that writes them in a real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.graph import build_graph, save_graph
from data.profile import graph_profile
from data.split import SplitConfig
from data.training_graph import split_graph
from evaluation.baselines.popular import popularity
from evaluation.report.sources import Sources
from evaluation.result_files import EvaluationProtocol, write_results
from evaluation.vector_scores import VectorScores

USERS, SONGS, ARTISTS, EVENTS, K = 40, 60, 7, 1200, 10
EVIL = '<script>alert("song")</script>'

DECISION = {
    "outcome": "hold",
    "reason": "Held: it is not shown to be as good as champion 4.",
    "reasons": ["Held: it is not shown to be as good as champion 4.", "Popularity is beaten."],
    "metric": "recall@10",
    "users": 40,
    "champion": 4,
    "champion_value": 0.25,
    "compared_users": 33,
    "against_champion": {"mean": -0.0123, "low": -0.0456, "high": 0.0078},
    "against_popularity": {"mean": 0.1, "low": 0.05, "high": 0.15},
    "guardrails": [{"name": "coverage", "users": 33, "passed": False, "says": "coverage fell"}],
    "data_checks": [{"name": "volume", "passed": True, "says": "as many plays as before"}],
    "compared": {"challenger": "c" * 64},
}
SEEDS = {
    "seeds": [0, 1],
    "metric": "recall@10",
    "metrics": {"recall@10": {"mean": 0.2, "low": 0.1, "high": 0.3, "per_seed": [0.19, 0.21], "sd": 0.0141}},
    "differences": {"popularity": {"recall@10": {"mean": 0.05, "low": 0.01, "high": 0.09}}},
}
AUDIT = {
    "passed": True,
    "checks": [{"name": "masks", "passed": True, "found": 0, "says": "no pair is in two parts"}],
    "canary": {"passed": True, "says": "planted pairs were not noticed"},
    "cannot_say": ["what the log itself leaks"],
}


def event_rows(names: bool, artists: bool, times: bool) -> str:
    """A log as CSV: popular songs first; song 0 has a name that nobody should run."""
    rng = np.random.default_rng(0)
    users, songs = rng.integers(USERS, size=EVENTS), (rng.beta(1, 3, size=EVENTS) * SONGS).astype(int)
    rows = [{"user_id": f"user {user}", "track_id": f"track {song}"} for user, song in zip(users, songs, strict=True)]
    for number, (row, song) in enumerate(zip(rows, songs, strict=True)):
        row |= {"artist_id": f"artist {song % ARTISTS}"} if artists else {}
        row |= {"track_name": EVIL.replace('"', "'") if song == 0 else f"Song number {song}"} if names else {}
        row |= {"artist_name": f"Band number {song % ARTISTS}"} if names and artists else {}
        row |= {"played_at": f"2025-01-{number % 28 + 1:02d}T{number % 24:02d}:{number % 60:02d}:00Z"} if times else {}
    return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(root: Path, in_sample: bool, **log: bool) -> Sources:
    """The folders of a run with one baseline and a registered version."""
    folders = {name: root / name for name in ("listens", "graph", "training_graph", "model", "evaluation", "baseline")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (root / "log.csv").write_text(event_rows(**log), encoding="utf-8")
    ingest(IngestConfig(events=[str(root / "log.csv")]), folders["listens"])
    graph = write_graphs(folders, in_sample)
    write_model(folders["model"], in_sample)
    write_evaluations(folders, graph, in_sample)
    write_registration(root / "registration", in_sample)
    write_json(root / "seeds" / "seeds.json", SEEDS)
    return Sources(
        "songs of <b>others</b>",
        folders["listens"],
        folders["graph"],
        folders["training_graph"],
        folders["model"],
        folders["evaluation"],
        {} if in_sample else {"popularity": folders["baseline"]},
        root / "registration",
        None if in_sample else root / "seeds",
    )


def write_graphs(folders: Mapping[str, Path], in_sample: bool) -> HeteroData:
    """Both graphs; what comes back is the one that the model learned from."""
    graph = build_graph(folders["listens"])
    for name in ("users", "songs", "artists"):
        (folders["graph"] / f"{name}.parquet").write_bytes((folders["listens"] / f"{name}.parquet").read_bytes())
    write_json(folders["graph"] / "profile.json", graph_profile(graph, folders["listens"]))
    save_graph(graph, folders["graph"] / "graph.pt")
    divided = split_graph(graph, SplitConfig(val_ratio=0.1, test_ratio=0.3))
    save_graph(divided, folders["training_graph"] / "training_graph.pt")
    return graph if in_sample else divided


def write_model(folder: Path, in_sample: bool) -> None:
    prefix = "in_sample_" if in_sample else ""
    epochs = [{"epoch": n, "lr": 0.01 / n, "loss": 1 / n, f"{prefix}recall@10": 0.1 * n} for n in (1, 2, 3)]
    write_json(folder / "history.json", epochs)
    write_json(folder / "results.json", {"best_epoch": None if in_sample else 2, "trained_on_everything": in_sample})
    config = {"trainer": "simple" if in_sample else "advanced", "model_config": {"architecture": "lightgcn"}}
    write_json(folder / "config.json", {**config, "training_config": {"lr": 0.01, "monitor": None}})
    manifest = {"key": "a" * 32, "sha256": "d" * 64, "inputs": {"training_graph": {}}, "config": {"num_epochs": 3}}
    write_json(
        folder / "manifest.json", {**manifest, "seconds": 12.5, "peak_mib": 345.6, "started": 1.75e9, "why": "x"}
    )


def write_evaluations(folders: Mapping[str, Path], graph: HeteroData, in_sample: bool) -> None:
    """Vectors that know a little of what is held out, and popularity beside them."""
    generator = torch.Generator().manual_seed(0)
    listened = torch.zeros((int(graph["user"].num_nodes), int(graph["song"].num_nodes)))
    listened[tuple(graph["user", "listens", "song"].edge_index)] = 1
    users = listened + 1.5 * torch.rand(listened.shape, generator=generator)
    songs = torch.eye(listened.shape[1])
    protocol = EvaluationProtocol("train" if in_sample else "test", K, ks=(5,))
    write_results(popularity(graph), graph, folders["graph"], folders["baseline"], protocol, baselines={})
    baselines = None if in_sample else {"popularity": folders["baseline"]}
    protocol = replace(protocol, conventions=() if in_sample else ("min_k",))
    score = VectorScores(users, songs)
    write_results(score, graph, folders["graph"], folders["evaluation"], protocol, baselines, songs)


def write_registration(folder: Path, in_sample: bool) -> None:
    write_json(folder / "registration.json", {"name": "songgraph", "version": 7, "run_id": "r", "decision": "Held."})
    write_json(folder / "decision.json", DECISION)
    write_json(folder / "bundle" / "audit.json", AUDIT)
    write_json(folder / "bundle" / "manifest.json", {"digest": "e" * 64, "facts": {"versions": {"torch": "2.13.0"}}})


@pytest.fixture(scope="session")
def make_sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sources]:
    """Write the folders of a run: ``make_sources(in_sample=True, names=False, artists=False, times=False)``."""

    def make(in_sample: bool = False, names: bool = True, artists: bool = True, times: bool = True) -> Sources:
        return write_run(tmp_path_factory.mktemp("run"), in_sample, names=names, artists=artists, times=times)

    return make


@pytest.fixture(scope="session")
def sources(make_sources: Callable[..., Sources]) -> Sources:
    """A complete run, which tests only read."""
    return make_sources()

"""Bundles of a few users and songs, and a registry whose tables are made once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch_geometric.data import HeteroData

from evaluation.result_files import EvaluationProtocol, write_results
from evaluation.vector_scores import VectorScores
from models.item_paths.local_scorer import LocalScorer, PathHeads
from models.item_paths.paths import Neighbors, Paths
from registry.bundle.assemble import assemble_bundle
from registry.gate.gate_config import GateConfig

NUM_USERS, NUM_SONGS, NUM_ARTISTS = 40, 30, 4

MakeBundle = Callable[..., Path]

LENIENT = GateConfig(margin=0.5, detectable_loss=0.95, guardrail_margin=0.9)
"""For so few users that a gate with its own margins would hold everything."""


def training_graph(seed: int = 0, masks: bool = True) -> HeteroData:
    """Every user listens to six songs, the fifth is validation and the sixth test."""
    generator = np.random.default_rng(seed)
    songs = np.concatenate([np.sort(generator.choice(NUM_SONGS, 6, replace=False)) for _ in range(NUM_USERS)])
    graph = HeteroData()
    for kind, count in (("user", NUM_USERS), ("song", NUM_SONGS), ("artist", NUM_ARTISTS)):
        graph[kind].num_nodes = count
        graph[kind].id_hash = torch.arange(count)
    store = graph["user", "listens", "song"]
    store.edge_index = torch.from_numpy(np.stack([np.repeat(np.arange(NUM_USERS), 6), songs]))
    by = torch.tensor([[0, 0, 1], [0, 1, 3]])  # song 0 has two artists, song 1 one without a name
    graph["song", "by", "artist"].edge_index = by
    if masks:
        part = torch.from_numpy(np.concatenate([generator.permutation([0, 0, 0, 0, 1, 2]) for _ in range(NUM_USERS)]))
        store.train_mask, store.val_mask, store.test_mask = part == 0, part == 1, part == 2
    return graph


def embeddings(graph: HeteroData, quality: float) -> dict[str, torch.Tensor]:
    """Users in a space with an axis a song: the greater the quality, the further their own songs stand out."""
    generator = torch.Generator().manual_seed(1)
    user = torch.rand((NUM_USERS, NUM_SONGS), generator=generator)
    edges = graph["user", "listens", "song"].edge_index
    user[edges[0], edges[1]] += quality
    return {"user": user, "song": torch.eye(NUM_SONGS)}


def local_channel(graph: HeteroData, similarity: float) -> LocalScorer:
    """A local channel of the train listens, where the similarity of the vectors counts ``similarity``."""
    store = graph["user", "listens", "song"]
    user, song = store.edge_index[:, store.get("train_mask", torch.ones(store.num_edges, dtype=torch.bool))].numpy()
    made, artist = graph["song", "by", "artist"].edge_index.numpy()
    users = Paths.of(song, user, NUM_SONGS, NUM_USERS, [0.5])
    artists = Paths.of(made, artist, NUM_SONGS, NUM_ARTISTS, [0.5])
    head = np.array([[0.5, 0.1, -0.3, 1.2]], dtype=np.float32)
    return LocalScorer(
        Neighbors.of(user, song, NUM_USERS),
        (PathHeads(users, head), PathHeads(artists, head)),
        user_power=np.array([0.5, 0.2], dtype=np.float32),
        gates=np.array([[0.2, 0.1, 0.0], [0.3, 0.0, 0.1], [similarity, 0.0, 0.0]], dtype=np.float32),
        popularity=0.05,
    )


def write_model(folder: Path, graph: HeteroData, quality: float, trainer: str, local: LocalScorer | None) -> Path:
    folder.mkdir(parents=True)
    if local:
        local.save(folder / "local.safetensors")
    save_file(embeddings(graph, quality), folder / "embeddings.safetensors")
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    config = {"trainer": trainer, "model_config": {"embedding_dim": 30}, "training_config": {"lr": 0.01}}
    (folder / "config.json").write_text(json.dumps(config))
    history = [{"epoch": 1, "loss": 0.7, "recall@5": 0.1}, {"epoch": 2, "loss": 0.5, "recall@5": 0.2}]
    (folder / "history.json").write_text(json.dumps(history))
    return folder


def write_vocabularies(folder: Path) -> Path:
    folder.mkdir(parents=True)
    names = [f"Song {song}" if song else None for song in range(NUM_SONGS)]
    tracks = {"track_id": [f"t{song:02}" for song in range(NUM_SONGS)], "track_name": names}
    artists = {"artist_id": ["a0", "a1", "a2", "a3"], "artist_name": ["Ann", "Bob", "Cid", None]}
    users = {"user_id": [f"u{user:02}" for user in range(NUM_USERS)]}
    for name, columns in (("users", users), ("songs", tracks), ("artists", artists)):
        table = pa.table(columns)
        table = table.append_column("id_hash", pa.array(range(len(table)), pa.int64()))
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def write_parts(
    root: Path,
    quality: float = 1.0,
    seed: int = 0,
    source: str = "log",
    trainer: str = "advanced",
    k: int = 5,
    similarity: float | None = None,
) -> dict[str, Any]:
    """What a bundle is assembled from; the numbers are as good as ``quality`` says, on the split ``seed`` draws.

    With ``similarity`` the model has a local channel, in which the vectors count so much.
    """
    in_sample = trainer == "simple"
    graph = training_graph(seed, masks=not in_sample)
    local = None if similarity is None else local_channel(graph, similarity)
    model, vocabularies = (
        write_model(root / "model", graph, quality, trainer, local),
        write_vocabularies(root / "graph"),
    )
    evaluation = root / "evaluation"
    evaluation.mkdir()
    vectors = embeddings(graph, quality)
    score, part = VectorScores(vectors["user"], vectors["song"], local), "train" if in_sample else "test"
    write_results(score, graph, vocabularies, evaluation, EvaluationProtocol(part, k, list_length=10))
    split = {"strategy": "random", "salt": seed, "val_ratio": 0.15, "test_ratio": 0.15}
    parts = {"model": model, "vocabularies": vocabularies, "evaluation": evaluation, "graph": graph}
    return {**parts, "source": source, "split": split, **write_stages(root / "stages")}


def write_stages(folder: Path) -> dict[str, Path]:
    """A passed audit and the profile of a log of these users and songs."""
    profile = {"plays": 1000, "pairs": NUM_USERS * 6, "users": NUM_USERS, "songs": NUM_SONGS, "rejected_share": 0.0}
    contents = {"audit": {"passed": True, "checks": []}, "profile": profile}
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return {name: folder / f"{name}.json" for name in contents}


@pytest.fixture
def lenient() -> GateConfig:
    """A gate for which 40 users are enough."""
    return LENIENT


@pytest.fixture
def make_parts(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write parts into a folder of their own."""
    count = iter(range(100))
    return lambda **choices: write_parts(tmp_path / f"run{next(count)}", **choices)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nobody changes."""
    root = tmp_path_factory.mktemp("pristine")
    assemble_bundle(root / "bundle", **write_parts(root / "run"))
    return root / "bundle"


@pytest.fixture(scope="session")
def with_local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a model with a local channel that nobody changes."""
    root = tmp_path_factory.mktemp("local")
    assemble_bundle(root / "bundle", **write_parts(root / "run", similarity=0.5))
    return root / "bundle"


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to read, damage or register."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture
def make_bundle(make_parts: Callable[..., dict[str, Any]]) -> MakeBundle:
    """Write a bundle of such parts."""

    def make(**choices: Any) -> Path:
        parts = make_parts(**choices)
        folder = parts["model"].parent / "bundle"
        assemble_bundle(folder, **parts)
        return folder

    return make


@pytest.fixture
def uri(empty_registry: Path, tmp_path: Path) -> str:
    """An empty registry."""
    path = tmp_path / "registry" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_registry, path)
    return f"sqlite:///{path}"

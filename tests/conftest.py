"""Small random listens and graphs, for the tests of every package.

A user's taste is a group (``user % groups``); four in five of the user's pairs are songs of that group
(``song % groups``), so that a model has something to find. The fixtures that start with ``make_`` are functions; all
randomness is in ``seed``.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch_geometric.data import HeteroData

from data.graph import assemble_graph
from data.listens import Listens
from data.split import SplitConfig
from data.training_graph import split_graph
from data.weights import WeightConfig

CHECKOUT = Path(__file__).resolve().parents[1]
FIRST_DAY = 20_000
SECONDS_A_DAY = 86_400


def listens_table(
    num_users: int = 40, num_songs: int = 30, num_rows: int = 600, num_days: int = 50, groups: int = 3, seed: int = 0
) -> pa.Table:
    """Rows (user, song, day), distinct and sorted, with every column of ``listens.parquet`` but ``split``."""
    rng = np.random.default_rng(seed)
    user = rng.integers(num_users, size=num_rows)
    of_group = rng.integers(-(-num_songs // groups), size=num_rows) * groups + user % groups
    song = np.where(
        (rng.random(num_rows) < 0.8) & (of_group < num_songs), of_group, rng.integers(num_songs, size=num_rows)
    )
    day = FIRST_DAY + rng.integers(num_days, size=num_rows)
    user, song, day = np.unique(np.stack([user, song, day]), axis=1)
    rows = len(user)
    plays = rng.integers(1, 5, size=rows)
    first_played = day * SECONDS_A_DAY + rng.integers(SECONDS_A_DAY // 2, size=rows)
    columns = {
        "user": pa.array(user, pa.int32()),
        "song": pa.array(song, pa.int32()),
        "day": pa.array(day, pa.int32()),
        "plays": pa.array(plays, pa.int64()),
        "skips": pa.array(rng.integers(plays + 1), pa.int64()),
        "completion": pa.array(rng.random(rows), pa.float32()),
        "first_played": pa.array(first_played, pa.int64()),
        "last_played": pa.array(first_played + (plays - 1) * 200, pa.int64()),
    }
    return pa.table(columns)


def song_artist_pairs(num_songs: int, num_artists: int) -> np.ndarray:
    """(2, B) every song by artist ``song % num_artists``; every fifth also by the next one; song 1 by nobody."""
    if num_artists == 0:
        return np.zeros((2, 0), dtype=np.int64)
    song = np.arange(num_songs)
    second = song[::5]
    pairs = np.stack([np.append(song, second), np.append(song % num_artists, (second + 1) % num_artists)])
    return np.unique(pairs[:, pairs[0] != 1], axis=1)


def id_hashes(count: int, kind: str) -> np.ndarray:
    """(count,) int64, stable: the first ones do not change when ``count`` grows."""
    offset = {"user": 1, "song": 2, "artist": 3}[kind] * 10**12
    return (offset + np.arange(count) * 7_919).astype(np.int64)


def random_graph(
    num_users: int = 40, num_songs: int = 30, num_artists: int = 6, table: pa.Table | None = None, **listens: Any
) -> HeteroData:
    """A whole graph without masks, of ``table`` or of what ``listens_table`` makes of ``listens``."""
    table = listens_table(num_users, num_songs, **listens) if table is None else table
    counts = {"user": num_users, "song": num_songs, "artist": num_artists}
    hashes = {kind: torch.from_numpy(id_hashes(count, kind)) for kind, count in counts.items()}
    by = torch.from_numpy(song_artist_pairs(num_songs, num_artists))
    return assemble_graph(hashes, Listens.from_table(table), by, WeightConfig())


def write_listens_folder(
    folder: Path, table: pa.Table, num_users: int = 40, num_songs: int = 30, num_artists: int = 6
) -> Path:
    """Write ``table`` and its vocabularies as the ingest stage does."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "listens.parquet")
    for kind, count in {"user": num_users, "song": num_songs, "artist": num_artists}.items():
        name = {"user": "user_id", "song": "track_id", "artist": "artist_id"}[kind]
        ids = pa.array([f"{kind}-{row:06d}" for row in range(count)], pa.string())
        vocabulary = {name: ids, "id_hash": pa.array(id_hashes(count, kind), pa.int64())}
        if kind != "user":
            vocabulary[f"{'track' if kind == 'song' else kind}_name"] = ids
        pq.write_table(pa.table(vocabulary), folder / f"{kind}s.parquet")
    song, artist = song_artist_pairs(num_songs, num_artists)
    by = {"song": pa.array(song, pa.int32()), "artist": pa.array(artist, pa.int32())}
    pq.write_table(pa.table(by), folder / "song_artists.parquet")
    return folder


@pytest.fixture(scope="session", autouse=True)
def databases_do_not_wait_for_the_disk() -> Iterator[None]:
    """A test can kill a process, but not cut the power; each commit to SQLite would wait for milliseconds."""
    connect = sqlite3.dbapi2.connect

    def unsynced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        link = connect(*arguments, **options)
        with suppress(sqlite3.DatabaseError):  # of a damaged file; whoever reads it is to find out
            link.execute("PRAGMA synchronous = OFF")
        return link

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3.dbapi2, "connect", unsynced)
        yield


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty database, whose migrations take seconds, made once; tests take copies."""
    from registry.backend.client import RegistryClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert RegistryClient(f"sqlite:///{path}", create=True).names() == []
    return path


@pytest.fixture(scope="session")
def make_listens() -> Callable[..., pa.Table]:
    """``listens_table``, for tests that vary its sizes."""
    return listens_table


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., HeteroData]:
    """``random_graph``, for tests that vary its sizes: ``make_graph(num_users=5, num_artists=0, seed=1)``."""
    return random_graph


@pytest.fixture(scope="session")
def make_training_graph() -> Callable[..., HeteroData]:
    """A random graph split at random: ``make_training_graph(num_users=5, val_ratio=0.3, seed=1)``."""

    def make(val_ratio: float = 0.15, test_ratio: float = 0.15, **sizes: Any) -> HeteroData:
        return split_graph(random_graph(**sizes), SplitConfig(val_ratio=val_ratio, test_ratio=test_ratio))

    return make


@pytest.fixture(scope="session")
def make_listens_folder() -> Callable[..., Path]:
    """``write_listens_folder(folder, table, num_users, num_songs, num_artists)``: what the ingest stage leaves."""
    return write_listens_folder


@pytest.fixture
def tiny_graph() -> HeteroData:
    """40 users, 30 songs, 6 artists, no masks."""
    return random_graph()


@pytest.fixture
def tiny_training_graph(make_training_graph: Callable[..., HeteroData]) -> HeteroData:
    """The same with random masks."""
    return make_training_graph()


@pytest.fixture(scope="session")
def installed_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the trainer of ``examples/contrastive_loss`` known once it is on Python's path.

    What an installation adds to the package, its entry points, is made by setuptools itself.
    """
    folder = tmp_path_factory.mktemp("installed") / "contrastive_loss"
    shutil.copytree(CHECKOUT / "examples" / "contrastive_loss", folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet", "egg_info"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``install("first", "swift = pkg.module:Swift")``: as if a package with that entry point were installed."""

    def add(package: str, entry_point: str, group: str = "songgraph.trainers") -> None:
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry_point}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return add

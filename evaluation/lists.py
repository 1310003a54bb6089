"""The lists that a model gives, kept for those who look at them, serve them or compare them later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from evaluation.parts import Part, hidden_edges, part_edges
from evaluation.ranking import Ranked, Score, rank

USERS_AT_ONCE = 8192

SCHEMA = pa.schema({"user_id": pa.string(), "rank": pa.int32(), "track_id": pa.string(), "score": pa.float32()})


def write_lists(
    score: Score, graph: HeteroData, users_vocab: Path, songs_vocab: Path, path: Path, k: int = 100, part: Part = "test"
) -> int:
    """Write the best k songs of every user with a listen in the part, the train listens hidden (in-sample: nothing).

    Args:
        score: as in ``evaluate``.
        graph: the training graph.
        users_vocab: users.parquet, whose row numbers are the user indices.
        songs_vocab: songs.parquet, likewise.
        path: the Parquet file to write: ``user_id``, ``rank`` from 1, ``track_id``, ``score``; by user index and rank.
        k: length of the lists; shorter where there are not as many songs left.
        part: the part that chooses the users.

    Returns:
        the number of users.
    """
    users = torch.unique(part_edges(graph, part)[0])
    hidden, length = hidden_edges(graph, part), min(k, int(graph["song"].num_nodes))
    batches = ((batch, rank(score, batch, hidden, length)) for batch in users.split(USERS_AT_ONCE))
    _write(batches, users_vocab, songs_vocab, path)
    return len(users)


def write_ranked(users: Tensor, ranked: Ranked, users_vocab: Path, songs_vocab: Path, path: Path, k: int = 100) -> None:
    """Write the same table from lists that an evaluation of all users has ranked already."""
    starts = range(0, len(users), USERS_AT_ONCE)
    parts = (slice(start, start + USERS_AT_ONCE) for start in starts)
    batches = ((users[part], Ranked(ranked.items[part, :k], ranked.scores[part, :k])) for part in parts)
    _write(batches, users_vocab, songs_vocab, path)


def _write(batches: Iterable[tuple[Tensor, Ranked]], users_vocab: Path, songs_vocab: Path, path: Path) -> None:
    names = _ids(users_vocab, "user_id"), _ids(songs_vocab, "track_id")
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for users, ranked in batches:
            writer.write_table(_table(users, ranked, *names))


def _ids(vocabulary: Path, column: str) -> pa.Array:
    return pq.read_table(vocabulary, columns=[column])[column].combine_chunks()


def _table(users: Tensor, ranked: Ranked, user_ids: pa.Array, track_ids: pa.Array) -> pa.Table:
    row, place = torch.nonzero(ranked.items >= 0, as_tuple=True)
    songs, scores = ranked.items[row, place], ranked.scores[row, place]
    columns = [
        user_ids.take(pa.array(users[row].numpy())),
        pa.array((place + 1).numpy(), pa.int32()),
        track_ids.take(pa.array(songs.numpy())),
        pa.array(scores.float().numpy()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)

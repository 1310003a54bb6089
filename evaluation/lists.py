"""Write and read recommendation lists, for people who look at them and for code that serves or compares them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.parts import Part, hidden_edges, part_edges
from evaluation.ranking import Ranked, Score, rank

USERS_AT_ONCE = 8192
ROWS_AT_ONCE = 2**20

SCHEMA = pa.schema({"user_id": pa.string(), "rank": pa.int32(), "track_id": pa.string(), "score": pa.float32()})


def write_lists(
    score: Score, graph: HeteroData, users_vocab: Path, songs_vocab: Path, path: Path, k: int = 100, part: Part = "test"
) -> int:
    """Write the best k songs of every user with a listen in the part. Train listens are hidden; in-sample, nothing is.

    Args:
        score: as in ``evaluate``.
        graph: the training graph.
        users_vocab: users.parquet; its row numbers are the user indices.
        songs_vocab: songs.parquet; its row numbers are the song indices.
        path: the Parquet file to write: ``user_id``, ``rank`` from 1, ``track_id``, ``score``; by user index and rank.
        k: length of the lists; a list is shorter if fewer songs are left.
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
    """Write the same table from lists (N, m) that are already ranked."""
    starts = range(0, len(users), USERS_AT_ONCE)
    chunks = (slice(start, start + USERS_AT_ONCE) for start in starts)
    batches = ((users[chunk], Ranked(ranked.items[chunk, :k], ranked.scores[chunk, :k])) for chunk in chunks)
    _write(batches, users_vocab, songs_vocab, path)


def read_lists(path: Path, user_ids: pa.Array, songs_vocab: Path, k: int) -> Ranked:
    """Read the first k places (N, k) of the lists of the given users (N,), in the form that ``rank`` returns.

    Raises:
        InputError: the file cannot be read, or lists a song that is not in the vocabulary.
    """
    songs = _read_ids(songs_vocab, "track_id")
    items, scores = torch.full((len(user_ids), k), -1), torch.full((len(user_ids), k), -torch.inf)
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch]).append_column("row", pc.index_in(batch["user_id"], user_ids))
            wanted = table.filter(pc.is_valid(pc.field("row")) & (pc.field("rank") <= k))
            _fill_places(wanted, songs, items, scores)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a readable table of lists; evaluate again.") from error
    return Ranked(items, scores)


def _fill_places(table: pa.Table, songs: pa.Array, items: Tensor, scores: Tensor) -> None:
    """Copy the songs and scores of ``table`` into ``items`` and ``scores`` (N, k), by the columns row and rank."""
    index = pc.index_in(table["track_id"], songs)
    if index.null_count:
        unknown = table["track_id"].filter(pc.is_null(index))[0]
        raise InputError(f"The lists name the song '{unknown}', which the vocabulary lacks; evaluate on one graph.")
    row, rank = (torch.from_numpy(table[name].to_numpy().astype("int64")) for name in ("row", "rank"))
    items[row, rank - 1] = torch.from_numpy(index.to_numpy().astype("int64"))
    scores[row, rank - 1] = torch.from_numpy(table["score"].to_numpy().astype("float32"))


def _write(batches: Iterable[tuple[Tensor, Ranked]], users_vocab: Path, songs_vocab: Path, path: Path) -> None:
    user_ids, track_ids = _read_ids(users_vocab, "user_id"), _read_ids(songs_vocab, "track_id")
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for users, ranked in batches:
            writer.write_table(_table(users, ranked, user_ids, track_ids))


def _read_ids(vocabulary: Path, column: str) -> pa.Array:
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

"""Two bundles on shared indices: what a comparison knows of each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor

from evaluation.ranking import Score, rank
from evaluation.vector_scores import VectorScores
from models.item_paths.local_scorer import LocalScorer
from registry.bundle.manifest import ScoreFiles
from registry.bundle.seen_tables import PARTS

IDS = {"user": "user_id", "song": "track_id", "artist": "artist_id"}


class Shared(NamedTuple):
    """The nodes of one model among those of both.

    ``nodes`` (N,) the shared index of each of its own; ``size`` how many there are of both together.
    """

    nodes: Tensor
    size: int

    def own(self, shared: Tensor) -> Tensor:
        """(E,) its own index of each shared one, -1 where it has none."""
        own = torch.full((self.size,), -1, dtype=torch.int64)
        own[self.nodes] = torch.arange(len(self.nodes))
        return own[shared]


@dataclass(frozen=True)
class Side:
    """A model as its bundle has it: scores in its own indices, pairs in shared ones."""

    users: Shared
    songs: Shared
    """Those that it may list."""
    pairs: Mapping[str, Tensor]
    """Part to the listens (2, E) that it has there."""
    by: Tensor
    """(2, B) its songs and their artists."""
    score: Score
    """Of users and songs in its own indices, (B,) to (B, S)."""

    def knows(self, users: Tensor) -> Tensor:
        """(N,) whether it was trained on each; of a user without a train song it knows nothing."""
        trained = torch.zeros(self.users.size, dtype=torch.bool)
        trained[self.pairs["train"][0]] = True
        return trained[users]

    def only(self, songs: Tensor) -> Side:
        """The same model with no other songs than these (shared indices) to choose from."""
        kept = torch.nonzero(torch.isin(self.songs.nodes, songs)).flatten()
        left = Shared(self.songs.nodes[kept], self.songs.size)
        return replace(self, songs=left, score=lambda users: self.score(users)[:, kept])

    def lists(self, users: Tensor, hidden: Tensor, k: int) -> Tensor:
        """Exact top-k, as the evaluation ranks.

        Args:
            users: (N,) distinct users.
            hidden: (2, H) pairs that must not be listed.
            k: length of the lists.

        Returns:
            (N, k) songs, best first; -1 in an empty place, and everywhere for a user whom it does not know.
        """
        items = torch.full((len(users), k), -1, dtype=torch.int64)
        known, length = self.knows(users), min(k, len(self.songs.nodes))
        if not (known.any() and length):
            return items
        found = rank(self.score, self.users.own(users[known]), self._own_pairs(hidden), length).items
        items[known, :length] = self.songs.nodes[found.clamp(min=0)].masked_fill(found < 0, -1)
        return items

    def _own_pairs(self, pairs: Tensor) -> Tensor:
        own = torch.stack([self.users.own(pairs[0]), self.songs.own(pairs[1])])
        return own[:, (own >= 0).all(dim=0)]


def read_sides(challenger: Path, champion: Path, files: tuple[ScoreFiles, ScoreFiles]) -> tuple[Side, Side]:
    """Read two bundles, matched by the ids of users, songs and artists.

    Args:
        challenger, champion: folders of bundles.
        files: what each is scored by.
    """
    matched = {kind: _matched(*(_ids(folder, kind) for folder in (challenger, champion))) for kind in IDS}
    ours, theirs = ({kind: pair[side] for kind, pair in matched.items()} for side in (0, 1))
    return _side(challenger, files[0], ours), _side(champion, files[1], theirs)


def _ids(folder: Path, kind: str) -> pa.Array:
    column = IDS[kind]
    return pq.read_table(folder / f"{kind}s.parquet", columns=[column])[column].combine_chunks().cast(pa.string())


def _matched(ours: pa.Array, theirs: pa.Array) -> tuple[Shared, Shared]:
    """Equal ids get one index; ours come first, in their own order."""
    encoded = pa.concat_arrays([ours, theirs]).dictionary_encode()
    nodes = torch.from_numpy(encoded.indices.to_numpy().astype(np.int64))
    return Shared(nodes[: len(ours)], len(encoded.dictionary)), Shared(nodes[len(ours) :], len(encoded.dictionary))


def _side(folder: Path, files: ScoreFiles, nodes: Mapping[str, Shared]) -> Side:
    seen, by = pq.read_table(folder / "seen.parquet"), pq.read_table(folder / "song_artists.parquet")
    edges, part = _laid(seen, nodes, "user", "song"), seen["part"].to_numpy()
    return Side(
        users=nodes["user"],
        songs=nodes["song"],
        pairs={name: edges[:, torch.from_numpy(part == name)] for name in PARTS},
        by=_laid(by, nodes, "song", "artist"),
        score=_score(folder, files),
    )


def _score(folder: Path, files: ScoreFiles) -> Score:
    vectors = load_file(folder / files.vectors)
    local = LocalScorer.load(folder / files.local) if files.local else None
    return VectorScores(vectors["user"], vectors["song"], local)


def _laid(table: pa.Table, nodes: Mapping[str, Shared], *columns: str) -> Tensor:
    """Columns of own indices as rows (2, E) of shared ones."""
    return torch.stack([nodes[kind].nodes[torch.from_numpy(table[kind].to_numpy().copy()).long()] for kind in columns])

"""Two bundles on shared indices, matched by the ids of users, songs and artists."""

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


class AlignedNodes(NamedTuple):
    """The nodes of one kind that one model has, with indices that both models share."""

    nodes: Tensor
    """(N,) shared index of each of the model's own nodes."""
    size: int
    """Number of nodes of both models together."""

    def own(self, shared: Tensor) -> Tensor:
        """Return the model's own index (E,) of each shared index (E,); -1 for a node that it does not have."""
        own = torch.full((self.size,), -1, dtype=torch.int64)
        own[self.nodes] = torch.arange(len(self.nodes))
        return own[shared]


@dataclass(frozen=True)
class AlignedModel:
    """A model from its bundle: it scores in its own indices, and its pairs are in shared ones."""

    users: AlignedNodes
    songs: AlignedNodes
    """The songs that it may list."""
    pairs: Mapping[str, Tensor]
    """Part to its listens (2, E)."""
    by: Tensor
    """(2, B) its songs and their artists."""
    score: Score
    """Scores (B, S) of users (B,) in its own indices."""

    def knows(self, users: Tensor) -> Tensor:
        """Return for each user (N,) if the model was trained on a listen of that user."""
        trained = torch.zeros(self.users.size, dtype=torch.bool)
        trained[self.pairs["train"][0]] = True
        return trained[users]

    def only(self, songs: Tensor) -> AlignedModel:
        """Return the same model that may list only these songs (shared indices)."""
        kept = torch.nonzero(torch.isin(self.songs.nodes, songs)).flatten()
        left = AlignedNodes(self.songs.nodes[kept], self.songs.size)
        return replace(self, songs=left, score=lambda users: self.score(users)[:, kept])

    def lists(self, users: Tensor, hidden: Tensor, k: int) -> Tensor:
        """Return the exact top k, ranked as the evaluation ranks.

        Args:
            users: (N,) distinct users.
            hidden: (2, H) pairs that must not be listed.
            k: length of the lists.

        Returns:
            (N, k) songs, best first; -1 in an empty place, and everywhere for a user whom the model does not know.
        """
        items = torch.full((len(users), k), -1, dtype=torch.int64)
        known, length = self.knows(users), min(k, len(self.songs.nodes))
        if not (known.any() and length):
            return items
        own = torch.stack([self.users.own(hidden[0]), self.songs.own(hidden[1])])
        own = own[:, (own >= 0).all(dim=0)]
        found = rank(self.score, self.users.own(users[known]), own, length).items
        items[known, :length] = self.songs.nodes[found.clamp(min=0)].masked_fill(found < 0, -1)
        return items


def align(challenger: Path, champion: Path, files: tuple[ScoreFiles, ScoreFiles]) -> tuple[AlignedModel, AlignedModel]:
    """Read two bundles, matched by the ids of users, songs and artists.

    Args:
        challenger, champion: folders of bundles.
        files: the files that each is scored by.
    """
    matched = {kind: _match(_ids(challenger, kind), _ids(champion, kind)) for kind in IDS}
    first, second = ({kind: pair[place] for kind, pair in matched.items()} for place in (0, 1))
    return _read(challenger, files[0], first), _read(champion, files[1], second)


def _ids(folder: Path, kind: str) -> pa.Array:
    column = IDS[kind]
    return pq.read_table(folder / f"{kind}s.parquet", columns=[column])[column].combine_chunks().cast(pa.string())


def _match(first: pa.Array, second: pa.Array) -> tuple[AlignedNodes, AlignedNodes]:
    """Give equal ids the same index; those of the first come first, in their own order."""
    encoded = pa.concat_arrays([first, second]).dictionary_encode()
    nodes, size = torch.from_numpy(encoded.indices.to_numpy().astype(np.int64)), len(encoded.dictionary)
    return AlignedNodes(nodes[: len(first)], size), AlignedNodes(nodes[len(first) :], size)


def _read(folder: Path, files: ScoreFiles, nodes: Mapping[str, AlignedNodes]) -> AlignedModel:
    seen, by = pq.read_table(folder / "seen.parquet"), pq.read_table(folder / "song_artists.parquet")
    edges, part = _shared(seen, nodes, "user", "song"), seen["part"].to_numpy()
    vectors = load_file(folder / files.vectors)
    local = LocalScorer.load(folder / files.local) if files.local else None
    return AlignedModel(
        users=nodes["user"],
        songs=nodes["song"],
        pairs={name: edges[:, torch.from_numpy(part == name)] for name in PARTS},
        by=_shared(by, nodes, "song", "artist"),
        score=VectorScores(vectors["user"], vectors["song"], local),
    )


def _shared(table: pa.Table, nodes: Mapping[str, AlignedNodes], *columns: str) -> Tensor:
    """Return columns of own indices as rows (2, E) of shared ones."""
    return torch.stack([nodes[kind].nodes[torch.from_numpy(table[kind].to_numpy().copy()).long()] for kind in columns])

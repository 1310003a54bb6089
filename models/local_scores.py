"""The local channel in use: numpy and compiled loops, so that a registered model answers without loading torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from models.compiled import in_parallel
from models.path_kernels import combined_scores, edge_weights
from models.paths import Neighbors, Paths, balanced, threads

Array = npt.NDArray[Any]

BLOCK = 2**22
"""Edges that are counted at once."""


class Relation(NamedTuple):
    """One kind of path between songs, and its heads (H, F + 3): bias, log d_i, log d_j, and F strengths."""

    paths: Paths
    heads: Array


class WeightedEdges(NamedTuple):
    """All edges of a relation by the song that was listened to: start (S + 1,), candidate (E,), weight (E, H)."""

    start: Array
    candidate: Array
    weight: Array


class LocalScores:
    """Turns similarities of vectors into the scores of a model with a local channel; see ``models.local.LocalChannel``.

    The edges are counted and weighed at the first score, and kept: 4 (1 + heads) bytes an edge.

    Args:
        listens: each user's train songs.
        relations: users' paths, artists' paths.
        user_power: (H,) power of the user's number of songs that a head's sum is divided by.
        gates: (H + 1, 3) constant, factor of log n_u and of log d_i of each head and, last, of the similarity.
        popularity: factor of log d_i.
    """

    def __init__(
        self,
        listens: Neighbors,
        relations: tuple[Relation, ...],
        *,
        user_power: Array,
        gates: Array,
        popularity: float,
    ) -> None:
        self.listens, self.relations = listens, relations
        self.user_power, self.gates, self.popularity = user_power, gates, popularity

    @property
    def num_songs(self) -> int:
        """Songs that it scores."""
        return len(self.log_listeners)

    @cached_property
    def log_listeners(self) -> Array:
        """(S,) logarithm of each song's number of listeners."""
        degree: Array = np.log(np.maximum(self.relations[0].paths.middles.degree, 1)).astype(np.float32)
        return degree

    def __call__(self, users: Array, similarity: Array) -> Array:
        """Scores (B, S) float32 of all songs.

        Args:
            users: (B,) indices.
            similarity: (B, S) float32, of their vectors and the songs'; it is written over.
        """
        rows = self.listens.rows(users)
        log_listens = np.log(np.maximum(rows.degree, 1)).astype(np.float32)[:, None]
        scale = np.exp(-self.user_power * log_listens).astype(np.float32)
        base, by_listens, by_listeners = self.gates.T.astype(np.float32)
        user_gate, song_gate = base + log_listens * by_listens, self.log_listeners[:, None] * by_listeners
        constant = (self.popularity * self.log_listeners).astype(np.float32)
        edges = tuple(zip(*self.edges, strict=True))
        parts = balanced(rows.degree + 1)
        out = np.ascontiguousarray(similarity, dtype=np.float32)
        in_parallel(
            combined_scores, threads(), len(parts) - 1, parts, *rows, scale, *edges, user_gate, song_gate, constant, out
        )
        return out

    @cached_property
    def edges(self) -> tuple[WeightedEdges, ...]:
        """The weighted edges of each relation."""
        return tuple(self._weighed(relation) for relation in self.relations)

    def _weighed(self, relation: Relation) -> WeightedEdges:
        blocks = [self._weighed_block(relation, songs) for songs in self._blocks(relation)]
        start = np.concatenate([[0], *(length for length, _, _ in blocks)]).cumsum()
        return WeightedEdges(start, np.concatenate([b[1] for b in blocks]), np.concatenate([b[2] for b in blocks]))

    def _blocks(self, relation: Relation) -> list[Array]:
        return list(relation.paths.blocks(np.arange(self.num_songs), BLOCK))

    def _weighed_block(self, relation: Relation, songs: Array) -> tuple[Array, Array, Array]:
        edges, heads = relation.paths.edges(songs), relation.heads.astype(np.float32)
        weight = np.empty((len(edges.other), len(heads)), dtype=np.float32)
        log_d = self.log_listeners[:, None]
        constant = np.stack([heads[:, 0] + heads[:, 2] * log_d, heads[:, 1] * log_d])
        parts, of_strength = balanced(np.diff(edges.start)), np.ascontiguousarray(heads[:, 3:])
        in_parallel(
            edge_weights, threads(), len(parts) - 1,
            parts, edges.start, songs, edges.other, edges.strength, of_strength, constant, weight,
        )  # fmt: skip
        return np.diff(edges.start), edges.other, weight

    def save(self, path: Path) -> None:
        """Write the train listens, the songs' artists and the parameters; the edges are derived from them."""
        save_file({name: np.ascontiguousarray(value) for name, value in self._tensors().items()}, path)

    @classmethod
    def load(cls, path: Path) -> LocalScores:
        """Read what ``save`` wrote."""
        found = load_file(path)
        listens = Neighbors(found["listens.start"], found["listens.song"])
        num_songs = len(found["artists.start"]) - 1
        users = (listens.node, np.repeat(np.arange(len(listens.start) - 1), listens.degree), len(listens.start) - 1)
        made = np.diff(found["artists.start"])
        artists = (np.repeat(np.arange(num_songs), made), found["artists.artist"], int(found["artists.count"][0]))
        relations = tuple(
            Relation(Paths.of(songs, middles, num_songs, count, found[f"{name}.powers"]), found[f"{name}.heads"])
            for name, (songs, middles, count) in (("users", users), ("artists", artists))
        )
        parameters = {name: found[name] for name in ("user_power", "gates")}
        return cls(listens, relations, popularity=float(found["popularity"][0]), **parameters)

    def _tensors(self) -> dict[str, Array]:
        users, artists = self.relations
        return {
            "listens.start": self.listens.start,
            "listens.song": self.listens.node,
            "artists.start": artists.paths.middles.start,
            "artists.artist": artists.paths.middles.node,
            "artists.count": np.array([len(artists.paths.songs.start) - 1]),
            "users.powers": np.array(users.paths.powers),
            "users.heads": users.heads,
            "artists.powers": np.array(artists.paths.powers),
            "artists.heads": artists.heads,
            "user_power": self.user_power,
            "gates": self.gates,
            "popularity": np.array([self.popularity], dtype=np.float32),
        }

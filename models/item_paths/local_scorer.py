"""The scores of a trained local channel: numpy and compiled loops, so that a registered model needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from data.errors import InputError
from data.machine import memory
from models.item_paths.paths import Neighbors, Paths
from models.kernels.compiled import in_balanced_parts
from models.kernels.path_counts import HeadTerms
from models.kernels.top_songs import Gates, ListenedEdges, WeightedEdges, score_songs

Array = npt.NDArray[Any]

ALL_EDGES_FROM = 1 / 32
"""If the users of a call listened to this share of all songs, the edges of all songs are computed and kept."""

GIB = 2**30

LAYOUT = {
    "listens.start": (np.int64, 1),
    "listens.song": (np.int32, 1),
    "artists.start": (np.int64, 1),
    "artists.artist": (np.int32, 1),
    "users.powers": (np.float64, 1),
    "users.heads": (np.float32, 2),
    "artists.powers": (np.float64, 1),
    "artists.heads": (np.float32, 2),
    "user_power": (np.float32, 1),
    "gates": (np.float32, 2),
    "popularity": (np.float32, 1),
}
"""Arrays of the file: the name, the dtype, and the number of dimensions."""


class PathHeads(NamedTuple):
    """One kind of path between songs, and its heads (H, F + 3): bias, factors of log d_i and log d_j, F strengths."""

    paths: Paths
    heads: Array


class LocalScorer:
    """Turns similarities of vectors into the scores of a model with a local channel.

    ``models.item_paths.local_channel.LocalChannel`` has the formula. When many users are scored, the edges of all songs
    are computed once and kept: 2 or 4 bytes per edge, and 4 for each head. For few users only the edges of their own
    songs are computed, in each call. The scores have the same bits both ways.

    Args:
        listens: each user's train songs.
        path_heads: the heads of the paths through users, and of those through artists.
        user_power: (H,) a head's sum is divided by the user's number of songs to this power.
        gates: (H + 1, 3) constant, factor of log n_u, and factor of log d_i, for each head and last for the similarity.
        popularity: factor of log d_i.
    """

    def __init__(
        self,
        listens: Neighbors,
        path_heads: tuple[PathHeads, ...],
        *,
        user_power: Array,
        gates: Array,
        popularity: float,
    ) -> None:
        self.listens, self.path_heads = listens, path_heads
        self.user_power, self.gates, self.popularity = user_power, gates, popularity

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.listens.start) - 1

    @property
    def num_songs(self) -> int:
        """Number of songs."""
        return len(self.log_listeners)

    @cached_property
    def log_listeners(self) -> Array:
        """(S,) logarithm of each song's number of listeners."""
        return self.path_heads[0].paths.middles.log_degree

    def __call__(self, users: Array, similarity: Array) -> Array:
        """Return the scores (B, S) float32 of all songs.

        Args:
            users: (B,) indices.
            similarity: (B, S) float32, similarity of the users' vectors and the songs'; it may be overwritten.

        Raises:
            InputError: this local channel belongs to other users or songs.
        """
        listened, gates = self.kernel_inputs(users, similarity.shape[1])
        out = np.ascontiguousarray(similarity, dtype=np.float32)
        in_balanced_parts(score_songs, np.diff(listened.start) + 1, listened, gates, out)
        return out

    def for_users(self, listens: Neighbors) -> LocalScorer:
        """Return a scorer for other users, given each user's songs; it shares the paths and the parameters."""
        other = LocalScorer(
            listens, self.path_heads, user_power=self.user_power, gates=self.gates, popularity=self.popularity
        )
        if "edges" in vars(self):
            vars(other)["edges"] = self.edges  # they are expensive, and do not depend on the users
        return other

    def kernel_inputs(self, users: Array, num_songs: int) -> tuple[ListenedEdges, Gates]:
        """Return what the loops of ``models.kernels.top_songs`` compute the scores of users (B,) from.

        Raises:
            InputError: this local channel belongs to other users or songs.
        """
        if num_songs != self.num_songs or users.max(initial=-1) >= self.num_users:  # a compiled loop does not check
            raise InputError(
                f"The local channel knows {self.num_users} users and {self.num_songs} songs, and is asked for user "
                f"{users.max(initial=0)} and {num_songs} songs; take all files of a model from one run."
            )
        rows = self.listens.rows(users)
        log_listens = rows.log_degree[:, None]
        base, by_listens, by_listeners = self.gates.T.astype(np.float32)
        return self._listened_edges(rows), Gates(
            user=base + log_listens * by_listens,
            song=by_listeners.copy(),
            scale=np.exp(-self.user_power * log_listens).astype(np.float32),
            popularity=np.array([self.popularity], dtype=np.float32),
            log_listeners=self.log_listeners,
        )

    def _listened_edges(self, rows: Neighbors) -> ListenedEdges:
        songs = np.unique(rows.node).astype(np.int64)
        if "edges" in vars(self) or (len(rows.start) > 2 and len(songs) >= ALL_EDGES_FROM * self.num_songs):
            return ListenedEdges(rows.start, rows.node, self.edges)
        place = np.searchsorted(songs, rows.node).astype(np.int32)
        return ListenedEdges(rows.start, place, self._edges_of(songs))

    @cached_property
    def edges(self) -> tuple[WeightedEdges, ...]:
        """The weighted edges of all songs, for each kind of path.

        Raises:
            InputError: the machine may not have enough memory for them.
        """
        songs = np.arange(self.num_songs)
        needed = sum(paths.max_weighted_bytes(songs, len(heads)) for paths, heads in self.path_heads)
        if needed > memory():
            raise InputError(
                f"To rank all songs the local channel needs up to {needed / GIB:,.0f} GiB for the edges between songs "
                f"of this log, but the machine has {memory() / GIB:,.0f}; set model.local to false, or use a log with "
                "fewer users or fewer songs per user."
            )
        return self._edges_of(songs)

    def _edges_of(self, songs: Array) -> tuple[WeightedEdges, ...]:
        """Return the weighted edges from some songs (n,), for each kind of path."""
        return tuple(paths.weighted_edges(songs, self._head_terms(heads)) for paths, heads in self.path_heads)

    def _head_terms(self, heads: Array) -> HeadTerms:
        bias, of_candidate, of_listened, *of_strength = heads.astype(np.float32).T
        log_d = self.log_listeners[:, None]
        return HeadTerms(
            of_strength=np.stack(of_strength, axis=1),
            listened=bias + of_listened * log_d,
            candidate=of_candidate * log_d,
        )

    def save(self, path: Path) -> None:
        """Write the train listens, the songs' artists and the parameters; ``load`` computes the rest from them."""
        save_file({name: np.ascontiguousarray(value) for name, value in self.arrays().items()}, path)

    @classmethod
    def load(cls, path: Path) -> LocalScorer:
        """Read a file that ``save`` wrote.

        Raises:
            InputError: the file is missing or damaged, or its arrays do not fit together.
        """
        try:
            found: dict[str, Array] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise _refused(path, f"it cannot be read ({error})") from None
        if problem := next(_problems(found), None):
            raise _refused(path, problem)
        listens = Neighbors(found["listens.start"], found["listens.song"])
        made = Neighbors(found["artists.start"], found["artists.artist"])
        num_songs = len(made.start) - 1
        # the artists' numbers in the graph do not matter, only which songs share an artist
        names, artist = np.unique(made.node, return_inverse=True)
        users = Paths.of(listens.node, listens.owner, num_songs, len(listens.start) - 1, found["users.powers"].tolist())
        artists = Paths.of(made.owner, artist, num_songs, len(names), found["artists.powers"].tolist())
        return cls(
            listens,
            (PathHeads(users, found["users.heads"]), PathHeads(artists, found["artists.heads"])),
            user_power=found["user_power"],
            gates=found["gates"],
            popularity=float(found["popularity"][0]),
        )

    def arrays(self) -> dict[str, Array]:
        """Return all arrays of the file, by name."""
        users, artists = self.path_heads
        return {
            "listens.start": self.listens.start,
            "listens.song": self.listens.node,
            "artists.start": artists.paths.middles.start,
            "artists.artist": artists.paths.middles.node,
            "users.powers": np.array(users.paths.powers),
            "users.heads": users.heads,
            "artists.powers": np.array(artists.paths.powers),
            "artists.heads": artists.heads,
            "user_power": self.user_power,
            "gates": self.gates,
            "popularity": np.array([self.popularity], dtype=np.float32),
        }


def _refused(path: Path, problem: str) -> InputError:
    return InputError(
        f"The local channel {path} is refused: {problem}. Take the file from the run that wrote the model, or train "
        "the model again."
    )


def _problems(found: Mapping[str, Array]) -> Iterator[str]:
    """Yield the problems of a file; each check relies on those before it."""
    yield from (f"it has no {name}" for name in LAYOUT if name not in found)
    for name, (kind, dimensions) in LAYOUT.items():
        if found[name].dtype != kind or found[name].ndim != dimensions:
            expected = f"{dimensions} dimension{'s' * (dimensions > 1)} of {np.dtype(kind)}"
            yield f"{name} has {found[name].ndim} of {found[name].dtype}, but needs {expected}"
    num_songs = len(found["artists.start"]) - 1
    yield from _row_problems(found, "artists.start", "artists.artist", 2**31 - 1)
    yield from _row_problems(found, "listens.start", "listens.song", num_songs)
    yield from _parameter_problems(found)


def _row_problems(found: Mapping[str, Array], start_name: str, node_name: str, limit: int) -> Iterator[str]:
    start, node = found[start_name], found[node_name]
    if not len(start) or start[0] != 0 or start[-1] != len(node) or (start[1:] < start[:-1]).any():
        yield f"{start_name} does not divide the {len(node)} entries of {node_name} into rows"
    if len(node) and not 0 <= node.min() <= node.max() < limit:
        yield f"{node_name} goes from {node.min()} to {node.max()}, and only 0 to {limit - 1} can be meant"
    same_row = np.ones(max(0, len(node) - 1), dtype=bool)
    same_row[start[(start > 0) & (start < len(node))] - 1] = False
    if (np.diff(node)[same_row] <= 0).any():
        yield f"a row of {node_name} does not ascend"


def _parameter_problems(found: Mapping[str, Array]) -> Iterator[str]:
    heads = {name: len(found[f"{name}.heads"]) for name in ("users", "artists")}
    shapes = {f"{name}.heads": (count, len(found[f"{name}.powers"]) + 3) for name, count in heads.items()}
    total = sum(heads.values())
    for name, shape in {**shapes, "user_power": (total,), "gates": (total + 1, 3), "popularity": (1,)}.items():
        if found[name].shape != shape:
            yield f"{name} has the shape {found[name].shape}, and {shape} fits the other arrays"
    for name, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            yield f"{name} has numbers that are not finite"

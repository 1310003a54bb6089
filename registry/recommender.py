"""Recommends with a registered model, with NumPy and Arrow and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from data.errors import InputError
from evaluation.exact_products import quantize_songs, quantize_users
from registry.bundle.manifest import Manifest, ScoreFiles, verify_bundle

if TYPE_CHECKING:
    from models.item_paths.local_scorer import LocalScorer

SEEN = {"all": ("train", "val", "test", "left_out"), "train": ("train",), "none": ()}
"""Value of ``seen`` to the parts with the hidden songs."""


class Recommender:
    """Recommends songs to the users that a bundle knows, by the same scores and order as the evaluation.

    A model with a local channel also scores by the paths from the user's own songs, which takes some milliseconds and
    loads Numba.

    Make one with ``Recommender.load(folder)`` or, from the registry, with ``registry.load("champion")``.
    """

    def __init__(self, folder: Path, manifest: Manifest, files: ScoreFiles | None = None) -> None:
        """Load the published model, or the one of ``files``, such as ``Manifest.evaluated``."""
        self.manifest = manifest
        files = files or manifest.published
        self._refitted = manifest.facts.refit and files == manifest.published
        vectors = load_file(folder / files.vectors)
        self._users = vectors["user"]  # (U, D)
        self._songs = quantize_songs(vectors["song"])  # (S, D)
        self._local: LocalScorer | None = None
        if files.local:
            from models.item_paths.local_scorer import LocalScorer  # loads Numba

            self._local = LocalScorer.load(folder / files.local)
        self._user_ids = _column(folder / "users.parquet", "user_id")
        self._songs_table = pq.read_table(folder / "songs.parquet").combine_chunks()
        self._artists = _artist_names(folder)
        self._seen = pq.read_table(folder / "seen.parquet").combine_chunks()
        self._seen_from = np.searchsorted(self._seen["user"].to_numpy(), np.arange(len(self._user_ids) + 1))

    @classmethod
    def load(cls, folder: Path) -> Recommender:
        """Verify a bundle and load it.

        Raises:
            InputError: the bundle is damaged, incomplete or mixed; the file is named.
        """
        return cls(folder, verify_bundle(folder))

    @property
    def num_users(self) -> int:
        """Return the number of users in its log; ``recommend`` refuses those of whom it has learned nothing."""
        return len(self._user_ids)

    @property
    def num_songs(self) -> int:
        """Return the number of songs that the model knows."""
        return len(self._songs)

    def recommend(
        self, user_id: str, k: int = 10, seen: Literal["all", "train", "none"] = "all"
    ) -> list[dict[str, Any]]:
        """Return the best k songs for a user, best first; equal scores are ordered by song index.

        Args:
            user_id: an id of the log.
            k: number of songs; fewer come back if no more are left.
            seen: which songs are left out: those of all known listens, those that the model was trained on, or none.

        Returns:
            a record for each song: ``track_id``, ``score``, and if known ``track_name`` and ``artist_name`` (several
            artists are joined by a comma).

        Raises:
            InputError: the user is unknown, the model has learned from none of the user's listens (all of them are
                held out), k is below 1, or ``seen`` is none of the three.
        """
        if seen not in SEEN:
            raise InputError(f"seen is {seen!r}; allowed are {', '.join(SEEN)}.")
        if k < 1:
            raise InputError(f"k is {k}; ask for at least one song.")
        user = self._user_index(user_id)
        scores = self.scores(user)
        open_songs = np.ones(len(scores), dtype=bool)
        hidden = SEEN["all" if seen == "train" and self._refitted else seen]  # a refit was trained on all parts
        rows = self._known_listens(user)
        open_songs[rows["song"].to_numpy()[np.isin(rows["part"].to_numpy(), hidden)]] = False
        return [self._record(int(song), float(scores[song])) for song in _best(scores, open_songs, k)]

    def scores(self, user: int) -> np.ndarray:
        """Return the scores (S,) float32 of all songs for a user index."""
        similarity = self._similarity(user)
        return self._local(np.array([user]), similarity[None])[0] if self._local else similarity

    def explain(self, user_id: str, track_id: str, k: int = 3) -> dict[str, Any]:
        """Explain why a song is recommended to a user, by the terms of its score.

        Args:
            user_id, track_id: ids of the log.
            k: number of the user's own songs to name, those that add most.

        Returns:
            the song's record of ``recommend``, and: ``vectors`` and ``popularity``, what the similarity of the vectors
            and the song's popularity add; ``because``, a record for each of the k songs with ``by_listeners`` and
            ``by_artists``, what it adds because the same users heard both and because they share an artist; and
            ``other_songs``, what the user's other songs add. The numbers add up to the score. A model without a local
            channel has its vectors only.

        Raises:
            InputError: the user or the song is unknown, the model has learned nothing of the user, or k is below 0.
        """
        if k < 0:
            raise InputError(f"k is {k}; ask for no songs (0) or for some.")
        user, song = self._user_index(user_id), _index_of(track_id, "song", self._songs_table["track_id"])
        similarity = float(self._similarity(user)[song])
        if self._local is None:
            none: dict[str, Any] = {"popularity": 0.0, "because": [], "other_songs": 0.0}
            return {**self._record(song, similarity), "vectors": similarity, **none}
        from models.item_paths.explanation import explain_score

        found = explain_score(self._local, user, song, similarity)
        because = [
            {**self._names(int(j)), "by_listeners": float(listeners), "by_artists": float(artists)}
            for j, listeners, artists in zip(found.songs[:k], found.by_listeners, found.by_artists, strict=False)
        ]
        other = float((found.by_listeners + found.by_artists)[k:].sum())
        parts = {"vectors": found.vectors, "popularity": found.popularity, "because": because, "other_songs": other}
        return {**self._record(song, found.score), **parts}

    def _similarity(self, user: int) -> np.ndarray:
        similarity: np.ndarray = (self._songs @ quantize_users(self._users[user : user + 1])[0]).astype(np.float32)
        return similarity

    def _user_index(self, user_id: str) -> int:
        user = _index_of(user_id, "user", self._user_ids)
        if not self._has_learned_of(user):
            raise InputError(
                f"The model has learned nothing of the user '{user_id}', whose first listen came after those that it "
                "learned from; the user appears with the next training that learns from that listen."
            )
        return user

    def _has_learned_of(self, user: int) -> bool:
        """Return if the model learned from a listen of the user; else the user's vector is still random."""
        if self._refitted:  # it learned from every listen of the log
            return True
        return bool(pc.any(pc.equal(self._known_listens(user)["part"], "train")).as_py())

    def _known_listens(self, user: int) -> pa.Table:
        start, end = (int(row) for row in self._seen_from[user : user + 2])
        return self._seen.slice(start, end - start)

    def _record(self, song: int, score: float) -> dict[str, Any]:
        names = self._names(song)
        return {"track_id": names.pop("track_id"), "score": score, **names}

    def _names(self, song: int) -> dict[str, Any]:
        row = self._songs_table.slice(song, 1).to_pylist()[0]
        names = {"track_name": row.get("track_name"), "artist_name": self._artists.get(song)}
        return {"track_id": row["track_id"], **{key: name for key, name in names.items() if name}}


def _index_of(wanted: str, kind: str, ids: pa.Array | pa.ChunkedArray) -> int:
    """Return the index of an id; raise InputError for one that the model does not know."""
    index: int = pc.index(ids, pa.scalar(str(wanted), pa.string())).as_py()
    if index < 0:
        raise InputError(
            f"The {kind} '{wanted}' is unknown to this model, which knows {len(ids)} {kind}s; "
            f"a {kind} appears with the first training after its first listen."
        )
    return index


def _best(scores: np.ndarray, open_songs: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the best k open songs, by falling score and then by index."""
    candidates = np.flatnonzero(open_songs)
    if len(candidates) > k:
        kth = np.partition(scores[candidates], len(candidates) - k)[len(candidates) - k]
        candidates = candidates[scores[candidates] >= kth]
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order][:k]


def _column(path: Path, name: str) -> pa.Array:
    return pq.read_table(path, columns=[name])[name].combine_chunks()


def _artist_names(folder: Path) -> dict[int, str]:
    """Return the names of each song's artists, by song index."""
    artists = _column(folder / "artists.parquet", "artist_name")
    by = pq.read_table(folder / "song_artists.parquet")
    named = by.append_column("name", artists.take(by["artist"])).filter(pc.field("name").is_valid())
    grouped = named.group_by("song", use_threads=False).aggregate([("name", "list")])
    joined = pc.binary_join(grouped["name_list"], ", ")
    return dict(zip(grouped["song"].to_pylist(), joined.to_pylist(), strict=True))

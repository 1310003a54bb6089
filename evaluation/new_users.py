"""Rank songs for users who are new to the model: their vectors are made from the few songs that are known of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from evaluation.metrics.accuracy import ranking_metrics
from evaluation.ranking import Ranked, rank
from evaluation.statistics.intervals import mean
from evaluation.vector_scores import VectorScores
from models.few_shot import FewShot, KnownSongs, mean_of_songs
from models.item_paths.local_scorer import LocalScorer
from models.item_paths.paths import Neighbors


class NewUsers:
    """Scores and ranks songs for new users, without a trainer or a graph.

    If the model has a local channel, it scores new users too: it reads a user's songs and the paths between songs in
    the train listens, and needs nothing that was learned about the user.

    Args:
        songs: (S, D) vectors, on the CPU.
        few_shot: makes a user's vector from songs.
        local: the local channel of the model, for any users; None if it has none.
    """

    def __init__(self, songs: Tensor, few_shot: FewShot, local: LocalScorer | None = None) -> None:
        self.songs, self.few_shot, self.local = songs, few_shot, local

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that ``save_model`` of the trainer ``meta`` wrote, or a bundle of such a model.

        Raises:
            InputError: the model was trained by another trainer.
        """
        few_shot, local = FewShot.load(folder), folder / "local.safetensors"
        songs = load_file(folder / "embeddings.safetensors")["song"]
        return cls(songs, few_shot, LocalScorer.load(local) if local.is_file() else None)

    def known(self, lists: Sequence[Tensor]) -> KnownSongs:
        """Put the known songs of users together, one tensor of song indices per user.

        Raises:
            InputError: as ``KnownSongs.of``.
        """
        return KnownSongs.of(lists, len(self.songs))

    @torch.no_grad()
    def vectors(self, known: KnownSongs) -> Tensor:
        """Compute the vectors of the users (B, D)."""
        adapted: Tensor = self.few_shot(known, self.songs)
        return adapted

    def score(self, known: KnownSongs, vectors: Tensor | None = None) -> VectorScores:
        """Return the score function of these users, numbered from 0 in the order of ``known``.

        Args:
            known: the known songs of B users.
            vectors: (B, D) vectors to use instead of ``vectors(known)``, for comparisons.
        """
        rows, songs = known.pairs.numpy()
        listens = Neighbors.of(rows, songs, len(known.songs))
        local = self.local.for_users(listens) if self.local is not None else None
        return VectorScores(self.vectors(known) if vectors is None else vectors, self.songs, local)

    def recommend(self, lists: Sequence[Tensor], k: int = 10) -> Ranked:
        """Return the best k songs for each user, without the known ones: lists (B, k), best first.

        Args:
            lists: the indices of the known songs, one tensor per user.
            k: length of the lists.

        Raises:
            InputError: a user has no song, there is no song with a given index, or k is above the number of songs.
        """
        known = self.known(lists)
        return rank(self.score(known), torch.arange(len(lists)), known.pairs, k)


@torch.no_grad()
def few_shot_recall(
    few_shot: FewShot, songs: Tensor, known: KnownSongs, hidden: Tensor, relevant: Tensor, k: int
) -> dict[str, float]:
    """Compute ``few_shot_recall@k`` and ``mean_of_songs_recall@k``: rank by similarity to either vector.

    Args:
        few_shot: makes a user's vector from songs.
        songs: (S, D) vectors.
        known: the known songs of B users.
        hidden, relevant: (2, H) and (2, R) row of the user and song; each user has a relevant song.
        k: length of the lists.

    Returns:
        both names with the mean over users.
    """
    vectors = {
        "few_shot": few_shot(known, songs),
        "mean_of_songs": mean_of_songs(known, songs, bool(few_shot.unit_length)),
    }
    rows = torch.arange(len(known.songs))
    lists = {name: rank(VectorScores(own, songs), rows, hidden, k).items for name, own in vectors.items()}
    return {
        f"{name}_recall@{k}": mean(ranking_metrics(items, relevant, k)["recall"].numpy())
        for name, items in lists.items()
    }

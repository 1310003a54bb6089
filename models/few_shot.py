"""Makes the vector of a new user from a few songs; how to do so is learned across all users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from data.errors import InputError

PREFIX = "few_shot"
"""Name of the module inside the model that it was trained with, and prefix of its weights in the model's file."""

INITIAL_RATE = 0.5
"""The matrices of the steps start as this multiple of the identity."""


class KnownSongs(NamedTuple):
    """The known songs of B users: songs (B, K) int64, and given (B, K) bool, False for padding."""

    songs: Tensor
    given: Tensor

    @classmethod
    def of(cls, lists: Sequence[Tensor], num_songs: int) -> Self:
        """Build it from one tensor of song indices per user; a song that is given twice counts once.

        Raises:
            InputError: a user has no song, or an index is out of range.
        """
        own = [_distinct_songs(songs, num_songs) for songs in lists]
        padded = nn.utils.rnn.pad_sequence([songs + 1 for songs in own], batch_first=True)
        return cls((padded - 1).clamp(min=0), padded > 0)

    def to(self, device: torch.device) -> KnownSongs:
        """Return the same on another device."""
        return KnownSongs(self.songs.to(device), self.given.to(device))

    @property
    def pairs(self) -> Tensor:
        """(2, P) row of the user and song of each known song, ordered by row."""
        rows, places = self.given.nonzero(as_tuple=True)
        return torch.stack([rows, self.songs[rows, places]])


class FewShot(nn.Module):
    """Makes the vector of a user from the vectors of 1 to about 10 songs, better than their mean.

    Let z_j be the vectors of the k known songs, and Z (C, D) those of the songs that they compete with. The user's
    first vector is

        w_0 = theta + (a + b log k) sum over j of softmax_j(q . z_j) z_j

    and each of T inner steps goes down the gradient of the softmax loss of the known songs, L(w) = mean over j of
    -log p_j with p = softmax(Z w / temperature), multiplied by the step's own matrix M_t:

        w_t+1 = w_t + M_t (mean over j of z_j - sum over i of p_i z_i).

    The bracket is -temperature times the gradient. theta, a, b, q and all M_t are learned by differentiating through
    the steps, on users with more songs than the given ones. theta is common to all users. The rates are matrices
    because the axes of the vectors have no meaning of their own. The result has length 1 if the model compares by
    cosine.

    Sources: Finn et al., "Model-Agnostic Meta-Learning", ICML 2017 (a learned start, and learning through the steps);
    Li et al., "Meta-SGD", 2017 (learned rates); Park and Oliva, "Meta-Curvature", NeurIPS 2019 (matrices in their
    place); Lee et al., "MeLU", KDD 2019 (a user as a task).

    Args:
        dim: D, length of the vectors.
        steps: T; with 0 the result is w_0.
        temperature: temperature of the inner steps.
        unit_length: whether the vectors of the model have length 1.
    """

    temperature: Tensor
    unit_length: Tensor

    def __init__(self, dim: int, steps: int, temperature: float, unit_length: bool) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(dim))
        self.songs_weight = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.attention = nn.Parameter(torch.zeros(dim))
        self.rates = nn.Parameter(INITIAL_RATE * torch.eye(dim).repeat(steps, 1, 1))
        self.register_buffer("temperature", torch.tensor(temperature))
        self.register_buffer("unit_length", torch.tensor(unit_length))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the module of a saved model from its ``model.safetensors``.

        Raises:
            InputError: the file cannot be read, or the model was trained without this module.
        """
        found = _own_weights(folder / "model.safetensors")
        steps, dim, _ = found["rates"].shape
        module = cls(dim, steps, float(found["temperature"]), bool(found["unit_length"]))
        module.load_state_dict(found)
        return module.eval()

    def forward(self, known: KnownSongs, songs: Tensor, competing: Tensor | None = None) -> Tensor:
        """Return the vectors of B users: (B, D).

        Args:
            known: the known songs of each user.
            songs: (S, D) vectors of all songs.
            competing: (C,) songs that the known ones compete with in the steps; None means all.
        """
        own = songs[known.songs]  # (B, K, D)
        share = (own @ self.attention).masked_fill(~known.given, -torch.inf).softmax(1)  # (B, K)
        count = known.given.sum(1, keepdim=True).to(own.dtype)
        mean = (own * known.given[..., None]).sum(1) / count
        base, by_count = self.songs_weight
        vector = self.start + (base + by_count * count.log()) * (share[..., None] * own).sum(1)
        others = songs if competing is None else songs[competing]
        for rate in self.rates:
            expected = (vector @ others.T / self.temperature).softmax(1) @ others
            vector = vector + (mean - expected) @ rate.T
        return F.normalize(vector, dim=1) if self.unit_length else vector


def mean_of_songs(known: KnownSongs, songs: Tensor, unit_length: bool) -> Tensor:
    """Return the mean of each user's known songs (B, D), from all songs' vectors (S, D): the baseline of adaptation."""
    mean = (songs[known.songs] * known.given[..., None]).sum(1) / known.given.sum(1, keepdim=True)
    return F.normalize(mean, dim=1) if unit_length else mean


def _distinct_songs(songs: Tensor, num_songs: int) -> Tensor:
    if songs.numel() == 0:
        raise InputError("A user has no known song, and a vector is made from at least one; give song indices.")
    low, high = int(songs.min()), int(songs.max())
    if low < 0 or high >= num_songs:
        raise InputError(
            f"A known song has the index {low if low < 0 else high}, but there are {num_songs} songs, counted from 0; "
            "leave out songs that the model does not know."
        )
    return songs.unique()


def _own_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights {path} cannot be read ({error}); save the model again.") from None
    own = {name.removeprefix(f"{PREFIX}."): value for name, value in weights.items() if name.startswith(f"{PREFIX}.")}
    if not own:
        raise InputError(f"The model of {path} has not learned to adapt; train it with the trainer 'meta'.")
    return own

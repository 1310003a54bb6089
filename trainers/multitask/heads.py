"""Small modules that predict a task of a user and an item from the vectors of a model."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import expit
from torch import Generator, Tensor, nn

from models.base import Embeddings, SomeEmbeddings
from trainers.multitask.labels import TASKS, Examples

Floats = npt.NDArray[np.float64]
Vectors = Embeddings | SomeEmbeddings

PRIOR_SD = 0.3
"""Standard deviation of the normal prior of a bias or a weight, in logits."""
STEP = 0.1
"""Effect of a parameter per unit: small, so that a parameter of one or two listens does not follow each of them."""
UNCORRECTED = (0.0, 1.0, 0.0, 0.0, 0.0)
"""The correction that changes nothing, see ``Head``."""
CERTAIN = 0.01
"""A head starts at the mean of its targets, but not nearer than this to 0 or 1."""


class Head(nn.Module, ABC):
    """Computes the logit of one task for users and items; its sigmoid is the prediction.

    The base is learned together with the vectors, and is right only about the pairs that it has seen: for the vectors a
    pair that they were trained on looks like a favourite. A correction for new pairs is therefore fitted on pairs that
    neither vectors nor head have learned from (Platt, "Probabilistic outputs for support vector machines", 1999), with
    two further inputs:

        logit = t_0 + t_1 base + t_2 similarity + t_3 log(1 + n_u) + t_4 log(1 + n_i)

    where n_u and n_i count the examples of user and item, and the logarithms are centred.

    Args:
        num_users, num_items: of the graph.
    """

    log_user: Tensor
    log_item: Tensor
    trust: Tensor

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("log_user", torch.zeros(num_users))
        self.register_buffer("log_item", torch.zeros(num_items))
        self.register_buffer("trust", torch.tensor(UNCORRECTED))

    @abstractmethod
    def base(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """Return logits (P,) of users (P,) and items (P,) before the correction."""

    @abstractmethod
    def similarity(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """Return how close users (P,) are to items (P,) in the space of the vectors: (P,)."""

    @abstractmethod
    def shrunk(self) -> Tensor:
        """Return the parameters that have a prior, in logits: (N,)."""

    @torch.no_grad()
    def begin(self, learned: Examples) -> None:
        """Start at the mean of the examples that the base learns from, and count them by user and item."""
        if len(learned.targets):
            self.offset.copy_(learned.targets.mean().logit(eps=CERTAIN))
            self.log_user.copy_(_centred_log_counts(learned.users, len(self.log_user)))
            self.log_item.copy_(_centred_log_counts(learned.items, len(self.log_item)))

    def loss(self, vectors: Vectors, examples: Examples, num_learned: int) -> Tensor:
        """Return the mean cross-entropy of the base, and the prior divided by ``num_learned`` examples: a scalar."""
        if not len(examples.targets):
            return self.offset * 0
        logits = self.base(vectors, examples.users, examples.items)
        prior = self.shrunk().square().sum() / (2 * PRIOR_SD**2 * num_learned)
        return F.binary_cross_entropy_with_logits(logits, examples.targets) + prior

    def forward(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """Return corrected logits (P,) of users (P,) and items (P,)."""
        return self._inputs(vectors, users, items) @ self.trust

    @torch.no_grad()
    def predicted(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """Return predictions (P,) in [0, 1]."""
        return self(vectors, users, items).sigmoid()

    @torch.no_grad()
    def calibrate(self, vectors: Vectors, kept: Examples) -> None:
        """Fit the correction on examples that neither vectors nor base have learned from."""
        if len(kept.targets):
            inputs = self._inputs(vectors, kept.users, kept.items).double().cpu().numpy()
            found = logistic_fit(inputs, kept.arrays().targets, np.array(UNCORRECTED))
            self.trust.copy_(torch.from_numpy(found))

    def _inputs(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        base, near = self.base(vectors, users, items), self.similarity(vectors, users, items)
        return torch.stack([torch.ones_like(base), base, near, self.log_user[users], self.log_item[items]], 1)  # (P, 5)


class SongHead(Head):
    """Adds up a bias of the user, one of the song, and a linear function of both vectors and of their product.

    Args:
        num_users, num_items: users and songs of the graph.
        dim: length of the vectors.
        generator: unused, everything starts at zero.
    """

    def __init__(self, num_users: int, num_items: int, dim: int, generator: Generator) -> None:
        super().__init__(num_users, num_items)
        self.user_bias = nn.Parameter(torch.zeros(num_users))
        self.song_bias = nn.Parameter(torch.zeros(num_items))
        self.mix = nn.Parameter(torch.zeros(3 * dim))

    def base(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """See ``Head``."""
        user, song = vectors.of_users(users), vectors.of_songs(items)
        root = math.sqrt(user.shape[1])  # the entries of a vector of length 1 are of size 1 after it
        inputs = torch.cat([user * root, song * root, user * song * root**2], 1)  # (P, 3D)
        biases = self.user_bias.index_select(0, users) + self.song_bias.index_select(0, items)
        return self.offset + STEP * (biases + inputs @ self.mix)

    def similarity(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """See ``Head``."""
        return (vectors.of_users(users) * vectors.of_songs(items)).sum(1)

    def shrunk(self) -> Tensor:
        """See ``Head``."""
        return STEP * torch.cat([self.user_bias, self.song_bias, self.mix])


class ArtistHead(Head):
    """Adds up a bias of the artist and the product of the user's vector with one of the artist, which the head learns.

    Args:
        num_users, num_items: users and artists of the graph.
        dim: length of the vectors.
        generator: draws the artists' first vectors.
    """

    INITIAL_SCALE = 0.1

    def __init__(self, num_users: int, num_items: int, dim: int, generator: Generator) -> None:
        super().__init__(num_users, num_items)
        self.artist = nn.Parameter(torch.randn(num_items, dim, generator=generator) * self.INITIAL_SCALE)
        self.artist_bias = nn.Parameter(torch.zeros(num_items))

    def base(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """See ``Head``."""
        product = (vectors.of_users(users) * self.artist.index_select(0, items)).sum(1)
        return self.offset + STEP * self.artist_bias.index_select(0, items) + product

    def similarity(self, vectors: Vectors, users: Tensor, items: Tensor) -> Tensor:
        """See ``Head``."""
        return (vectors.of_users(users) * F.normalize(self.artist.index_select(0, items), dim=1)).sum(1)

    def shrunk(self) -> Tensor:
        """See ``Head``."""
        return torch.cat([STEP * self.artist_bias, PRIOR_SD * self.artist.flatten()])


HEADS: dict[str, type[SongHead] | type[ArtistHead]] = {"song": SongHead, "artist": ArtistHead}
"""By the kind of item that a task is about."""


class TaskHeads(nn.Module):
    """The heads of some tasks.

    Args:
        tasks: names in ``TASKS``.
        num_nodes: of each node type.
        dim: length of the model's vectors.
        generator: draws the first weights.
    """

    def __init__(self, tasks: Sequence[str], num_nodes: Mapping[str, int], dim: int, generator: Generator) -> None:
        super().__init__()
        for name in tasks:
            item = TASKS[name].item
            self.add_module(name, HEADS[item](num_nodes["user"], num_nodes[item], dim, generator))

    def items(self) -> Iterator[tuple[str, Head]]:
        """Yield each task and its head."""
        for name, head in self.named_children():
            assert isinstance(head, Head)
            yield name, head

    def copied(self) -> TaskHeads:
        """Return a copy on the CPU, which later training does not change."""
        return copy.deepcopy(self).cpu()


def logistic_fit(inputs: Floats, targets: Floats, start: Floats) -> Floats:
    """Return the weights (F,) of a logistic regression with a normal prior of variance 1 around ``start``.

    Args:
        inputs: (P, F). targets: (P,) in [0, 1].
    """

    def error(weights: Floats) -> tuple[float, Floats]:
        logits, away = inputs @ weights, weights - start
        loss = np.logaddexp(0, logits).sum() - targets @ logits + away @ away / 2
        return float(loss), inputs.T @ (expit(logits) - targets) + away

    found: Floats = minimize(error, start, jac=True, method="L-BFGS-B").x
    return found


def _centred_log_counts(nodes: Tensor, count: int) -> Tensor:
    """Return log(1 + number of occurrences) of each node, minus the mean: (count,)."""
    logs = torch.bincount(nodes, minlength=count).float().log1p()
    return logs - logs.mean()

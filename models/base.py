"""What every recommender model shares: its configuration, its node table and the form of its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from data.config import Config
from data.errors import InputError
from data.graph import NODE_TYPES
from data.search import Choices, Range
from models.graph.adjacency import adjacency
from models.graph.neighborhood import Neighborhood, Sampler
from models.item_paths.local_channel import LocalChannel


class Embeddings(NamedTuple):
    """Users and songs in one space; the similarity of a pair is the dot product of its two rows.

    It is the score too, unless the model has a local channel, which makes the score from it and more.

    Shapes: user (U, D), song (S, D).
    """

    user: Tensor
    song: Tensor

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.user.device

    def of_users(self, users: Tensor) -> Tensor:
        """Vectors of ``users`` (B,): (B, D)."""
        # index_select, here and below: its gradient is several times faster than that of indexing
        return self.user.index_select(0, users.to(self.user.device))

    def of_songs(self, songs: Tensor) -> Tensor:
        """Vectors of ``songs`` (B,): (B, D)."""
        return self.song.index_select(0, songs.to(self.song.device))


class SomeEmbeddings(NamedTuple):
    """Vectors of some users and songs, asked for by the same numbers as those of all.

    Shapes: users (U',) and songs (S',), ascending; the vectors have U' and S' rows.
    """

    users: Tensor
    songs: Tensor
    vectors: Embeddings

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.vectors.device

    def of_users(self, users: Tensor) -> Tensor:
        """Vectors of ``users`` (B,), all of them among ``users`` of this: (B, D)."""
        return self.vectors.of_users(torch.searchsorted(self.users, users.to(self.users.device)))

    def of_songs(self, songs: Tensor) -> Tensor:
        """Vectors of ``songs`` (B,), all of them among ``songs`` of this: (B, D)."""
        return self.vectors.of_songs(torch.searchsorted(self.songs, songs.to(self.songs.device)))


class ModelConfig(Config):
    """Keys that every architecture understands."""

    architecture: str = "gat"
    """Name of the model: gat, lightgcn, mf, or package.module:Class."""

    num_users: PositiveInt
    """Users in the graph."""

    num_songs: PositiveInt
    """Songs in the graph."""

    num_artists: NonNegativeInt = 0
    """Artists in the graph; 0 where the log names none."""

    embedding_dim: Annotated[PositiveInt, Choices(32, 64, 128, 256)] = 32
    """Length of each node's vector."""

    dropout: Annotated[float, Range(0.0, 0.5)] = Field(0.1, ge=0.0, lt=1.0)
    """Share of what a training step reads that is left out at random; each model says what it drops."""

    similarity: Literal["cosine", "dot"] = "cosine"
    """How two vectors are compared; cosine scales the vectors to length 1, dot leaves them as they are."""

    def num_nodes(self, kind: str) -> int:
        """Nodes of a kind: user, song or artist."""
        return int(getattr(self, f"num_{kind}s"))


class RecommenderModel(nn.Module, ABC):
    """A map from a graph to user and song vectors whose dot product is their similarity.

    A model reads only the train edges of the graph that it is given, and never asks for a loss or an optimizer:
    those belong to the trainer. Build one with ``models.factory.create_model``, which seeds its weights.

    Args:
        config: an instance of the class attribute ``Config``.

    Attributes:
        local: what turns the similarity of two vectors into the score, where a model has it; otherwise None, and the
            similarity is the score.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.local: LocalChannel | None = None

    @abstractmethod
    def encode(self, graph: HeteroData) -> Embeddings:
        """Vectors of all users (U, D) and all songs (S, D)."""

    def encode_without(self, graph: HeteroData, pairs: Tensor) -> Embeddings:
        """``encode`` while the train edges of some pairs (2, B) carry no message, so that a loss on them is honest.

        The same as ``encode`` unless a model says otherwise: one that sends no messages has nothing to leave out.
        """
        return self.encode(graph)

    @property
    def num_hops(self) -> int:
        """Layers that pass messages, for models that can do so over a sampled neighbourhood; otherwise 0."""
        return 0

    def encode_some(self, graph: HeteroData, users: Tensor, songs: Tensor, sampler: Sampler) -> SomeEmbeddings:
        """An estimate of the vectors of some users and songs, in any order, from sampled neighbourhoods.

        Only for a model whose ``num_hops`` is as many as the sampler has fan-outs.
        """
        raise NotImplementedError

    def node_rows(self) -> dict[str, tuple[str, ...]]:
        """Parameters that have a row a node, and the kinds of nodes in the order of the rows; none unless a model says.

        A training that starts from another model's weights moves these rows by the nodes' ids, and copies the rest.
        """
        return {}

    def penalty(self, users: Tensor, songs: Tensor) -> Tensor:
        """Sum of squared weights behind the pairs of a batch, for L2 regularisation; zero unless a model says more.

        Args:
            users, songs: (B,) indices of the batch's pairs.
        """
        return torch.zeros((), device=users.device)

    def check_graph(self, graph: HeteroData) -> None:
        """Raise InputError unless the graph has as many nodes of each type as the config says."""
        for kind in NODE_TYPES:
            key = f"num_{kind}s"
            given, actual = self.config.num_nodes(kind), _num_nodes(graph, kind)
            if given != actual:
                raise InputError(
                    f"model_config.{key} is {given}, but the graph has {actual} {kind}s; set {key} to {actual}."
                )


class TableModel(RecommenderModel):
    """A model that starts from one learned vector a node, users first, then songs, then (for some) artists.

    Args:
        config: sizes and similarity.
        num_rows: rows of the table; at least users and songs.
    """

    INITIAL_SCALE = 0.1

    def __init__(self, config: ModelConfig, num_rows: int) -> None:
        super().__init__(config)
        self.table = nn.Parameter(torch.randn(num_rows, config.embedding_dim) * self.INITIAL_SCALE)

    @abstractmethod
    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Final vectors before the similarity is applied, in the order of the table: (num_rows, D).

        Args:
            left_out: (2, B) pairs whose edges carry no message.
        """

    def sampled_vectors(self, near: Neighborhood) -> Tensor:
        """``node_vectors`` of the seeds of a sampled neighbourhood: (S, D). For models with ``num_hops``."""
        raise NotImplementedError

    def encode(self, graph: HeteroData) -> Embeddings:
        """See ``RecommenderModel.encode``."""
        return self._all_embeddings(self.node_vectors(graph))

    def encode_without(self, graph: HeteroData, pairs: Tensor) -> Embeddings:
        """See ``RecommenderModel.encode_without``."""
        return self._all_embeddings(self.node_vectors(graph, pairs))

    def encode_some(self, graph: HeteroData, users: Tensor, songs: Tensor, sampler: Sampler) -> SomeEmbeddings:
        """See ``RecommenderModel.encode_some``."""
        users, songs, num_users = users.unique(), songs.unique(), self.config.num_users
        seeds = torch.cat([users, songs + num_users])
        near = sampler.neighborhood(adjacency(graph, self.table.device), num_users, seeds)
        return SomeEmbeddings(users, songs, self._embeddings(self.sampled_vectors(near), len(users)))

    def _all_embeddings(self, vectors: Tensor) -> Embeddings:
        return self._embeddings(vectors[: self.config.num_users + self.config.num_songs], self.config.num_users)

    def _embeddings(self, vectors: Tensor, num_users: int) -> Embeddings:
        if self.config.similarity == "cosine":
            vectors = F.normalize(vectors, dim=1)
        return Embeddings(vectors[:num_users], vectors[num_users:])

    def node_rows(self) -> dict[str, tuple[str, ...]]:
        """The table: users, songs and, for models in which they take part, artists."""
        takes_artists = len(self.table) > self.config.num_users + self.config.num_songs
        return {"table": NODE_TYPES if takes_artists else NODE_TYPES[:2]}

    def penalty(self, users: Tensor, songs: Tensor) -> Tensor:
        """Squared length of the input vectors of the batch's users and songs, summed."""
        rows = torch.cat([users, songs + self.config.num_users])
        return self.table.index_select(0, rows).square().sum()


def _num_nodes(graph: HeteroData, kind: str) -> int:
    return int(graph[kind].num_nodes or 0) if kind in graph.node_types else 0

"""The base of all recommender models: configuration, embeddings, and a table of node vectors."""

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
from models.graph.neighborhood import Neighborhood, NeighborSampler
from models.item_paths.local_channel import LocalChannel


class Embeddings(NamedTuple):
    """Vectors of users and songs; the similarity of a pair is the dot product of its two rows.

    The similarity is the score, unless the model has a local channel, which computes the score from it.

    Shapes: user (U, D), song (S, D).
    """

    user: Tensor
    song: Tensor

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""
        return self.user.device

    def of_users(self, users: Tensor) -> Tensor:
        """Return the vectors of ``users`` (B,): (B, D)."""
        # index_select, here and below: its gradient is several times faster than that of indexing
        return self.user.index_select(0, users.to(self.user.device))

    def of_songs(self, songs: Tensor) -> Tensor:
        """Return the vectors of ``songs`` (B,): (B, D)."""
        return self.song.index_select(0, songs.to(self.song.device))


class SomeEmbeddings(NamedTuple):
    """Vectors of some users and songs, which are looked up by the same indices as in ``Embeddings``.

    Shapes: users (U',) and songs (S',), ascending; the vectors have U' and S' rows.
    """

    users: Tensor
    songs: Tensor
    vectors: Embeddings

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""
        return self.vectors.device

    def of_users(self, users: Tensor) -> Tensor:
        """Return the vectors of ``users`` (B,), which must be among ``self.users``: (B, D)."""
        return self.vectors.of_users(torch.searchsorted(self.users, users.to(self.users.device)))

    def of_songs(self, songs: Tensor) -> Tensor:
        """Return the vectors of ``songs`` (B,), which must be among ``self.songs``: (B, D)."""
        return self.vectors.of_songs(torch.searchsorted(self.songs, songs.to(self.songs.device)))


class ModelConfig(Config):
    """Keys that every architecture understands."""

    architecture: str = "gat"
    """Name of the model: gat, lightgcn, mf, or a class as package.module:Class."""

    num_users: PositiveInt
    """Number of users in the graph."""

    num_songs: PositiveInt
    """Number of songs in the graph."""

    num_artists: NonNegativeInt = 0
    """Number of artists in the graph; 0 if the log names none."""

    embedding_dim: Annotated[PositiveInt, Choices(32, 64, 128, 256)] = 32
    """Length of each node's vector."""

    dropout: Annotated[float, Range(0.0, 0.5)] = Field(0.1, ge=0.0, lt=1.0)
    """Share that a training step leaves out at random; each model says of what."""

    similarity: Literal["cosine", "dot"] = "cosine"
    """How two vectors are compared: cosine scales vectors to length 1, dot does not."""

    def num_nodes(self, kind: str) -> int:
        """Return the number of nodes of a kind: user, song or artist."""
        return int(getattr(self, f"num_{kind}s"))


class RecommenderModel(nn.Module, ABC):
    """Maps a graph to vectors of users and songs; their dot product is the similarity.

    A model reads only the train edges of a graph. It knows no loss and no optimizer: these belong to the trainer. Build
    a model with ``models.factory.create_model``, which seeds its weights.

    Args:
        config: an instance of the class attribute ``Config``.

    Attributes:
        local: the local channel, which turns similarities into scores. None if the similarity is the score.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.local: LocalChannel | None = None

    @abstractmethod
    def encode(self, graph: HeteroData) -> Embeddings:
        """Return the vectors of all users (U, D) and all songs (S, D)."""

    def encode_without(self, graph: HeteroData, pairs: Tensor) -> Embeddings:
        """Encode while the train edges of some pairs (2, B) carry no message, so that a loss on them is honest.

        By default the same as ``encode``: a model that sends no messages has nothing to leave out.
        """
        return self.encode(graph)

    @property
    def num_hops(self) -> int:
        """Number of layers that can pass messages over a sampled neighbourhood; 0 if the model cannot do so."""
        return 0

    def encode_some(self, graph: HeteroData, users: Tensor, songs: Tensor, sampler: NeighborSampler) -> SomeEmbeddings:
        """Estimate the vectors of some users and songs, in any order, from sampled neighbourhoods.

        The sampler must have one number of neighbours for each of the ``num_hops`` layers.
        """
        raise NotImplementedError

    def node_rows(self) -> dict[str, tuple[str, ...]]:
        """Return the parameters that have one row per node, each with the kinds of nodes in the order of its rows.

        A warm start matches these rows by the ids of the nodes, and copies all other parameters. By default there are
        none.
        """
        return {}

    def penalty(self, users: Tensor, songs: Tensor) -> Tensor:
        """Return the sum of squared weights that the pairs of a batch depend on, for L2 regularisation; by default 0.

        Args:
            users, songs: (B,) indices of the batch's pairs.
        """
        return torch.zeros((), device=users.device)

    def check_graph(self, graph: HeteroData) -> None:
        """Raise InputError unless the graph has as many nodes of each type as the config says."""
        for kind in NODE_TYPES:
            key = f"num_{kind}s"
            given = self.config.num_nodes(kind)
            actual = int(graph[kind].num_nodes or 0) if kind in graph.node_types else 0
            if given != actual:
                raise InputError(
                    f"model_config.{key} is {given}, but the graph has {actual} {kind}s; set {key} to {actual}."
                )


class TableModel(RecommenderModel):
    """A model that starts from a table of learned vectors: one row for each user, then each song, then each artist.

    Args:
        config: sizes and similarity.
        num_rows: rows of the table: users and songs, and artists if the model uses them.
    """

    INITIAL_SCALE = 0.1

    def __init__(self, config: ModelConfig, num_rows: int) -> None:
        super().__init__(config)
        self.table = nn.Parameter(torch.randn(num_rows, config.embedding_dim) * self.INITIAL_SCALE)

    @abstractmethod
    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        """Return the final vectors, not yet scaled for the similarity, in the order of the table: (num_rows, D).

        Args:
            left_out: (2, B) user-song pairs that carry no message.
        """

    def sampled_vectors(self, near: Neighborhood) -> Tensor:
        """Return the final vectors of the seeds of a neighbourhood: (S, D). Needed if ``num_hops`` is not 0."""
        raise NotImplementedError

    def encode(self, graph: HeteroData) -> Embeddings:
        """See ``RecommenderModel.encode``."""
        return self._embeddings(self.node_vectors(graph), self.config.num_users, self.config.num_songs)

    def encode_without(self, graph: HeteroData, pairs: Tensor) -> Embeddings:
        """See ``RecommenderModel.encode_without``."""
        return self._embeddings(self.node_vectors(graph, pairs), self.config.num_users, self.config.num_songs)

    def encode_some(self, graph: HeteroData, users: Tensor, songs: Tensor, sampler: NeighborSampler) -> SomeEmbeddings:
        """See ``RecommenderModel.encode_some``."""
        users, songs, num_users = users.unique(), songs.unique(), self.config.num_users
        seeds = torch.cat([users, songs + num_users])
        near = sampler.neighborhood(adjacency(graph, self.table.device), num_users, seeds)
        return SomeEmbeddings(users, songs, self._embeddings(self.sampled_vectors(near), len(users), len(songs)))

    def _embeddings(self, vectors: Tensor, num_users: int, num_songs: int) -> Embeddings:
        vectors = vectors[: num_users + num_songs]
        if self.config.similarity == "cosine":
            vectors = F.normalize(vectors, dim=1)
        return Embeddings(vectors[:num_users], vectors[num_users:])

    def node_rows(self) -> dict[str, tuple[str, ...]]:
        """Return the table: users, songs and, if the model uses them, artists."""
        has_artists = len(self.table) > self.config.num_users + self.config.num_songs
        return {"table": NODE_TYPES if has_artists else NODE_TYPES[:2]}

    def penalty(self, users: Tensor, songs: Tensor) -> Tensor:
        """Return the sum of the squared lengths of the table rows of the batch's users and songs."""
        rows = torch.cat([users, songs + self.config.num_users])
        return self.table.index_select(0, rows).square().sum()

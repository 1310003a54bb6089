"""Trains a model, and a module that makes the vector of a new user from few songs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.new_users import NewUsers, few_shot_recall
from evaluation.parts import part_edges, sample_users
from evaluation.ranking import Ranked, rows_of
from models.few_shot import PREFIX, FewShot
from models.graph.graph_cache import GraphCache
from models.item_paths.paths import Neighbors
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.loop.random_streams import stream
from trainers.losses import Candidates, sampled_softmax
from trainers.meta.episodes import Episode, known_songs, user_subset
from trainers.objective import MOST_LEFT_OUT
from trainers.sampling import known_columns, sample_songs, train_pairs
from trainers.warm_start.transfer import EarlierModel


class MetaConfig(AdvancedConfig):
    """Keys of ``meta``."""

    max_known_songs: PositiveInt = 10
    """Most songs that are known of an episode's user; their number is drawn, from 1 on."""

    inner_steps: NonNegativeInt = 3
    """Gradient steps from the learned start to a user's vector; with 0 the start is the vector."""

    episode_temperature: PositiveFloat = 0.5
    """Scores are divided by it in the inner steps and in the loss of the episodes; the greater, the less the known
    songs are trusted. For cosine scores, as ``temperature``."""

    episode_users: PositiveInt = 128
    """Users in a step of the episodes."""

    episode_steps: PositiveInt = 40
    """Steps of the episodes in an epoch, after those of the model."""


class MetaTrainer(AdvancedTrainer):
    """Trains as ``AdvancedTrainer`` does, and learns to serve new users, who have a few songs but no row in the model.

    After each epoch of the model's own steps come ``episode_steps`` steps of ``models.few_shot.FewShot``. An episode
    treats train users as new: 1 to ``max_known_songs`` of their train songs are known, and the loss is that of their
    other train songs under the vector that ``FewShot`` makes. The songs' vectors are constants, computed while the
    listens of all users of the epoch's episodes carry no message, as those of a new user do not. So the model's own
    weights are, to the bit, those that ``AdvancedTrainer`` gives with the same keys and seed.

    The module is a part of the model under the name ``few_shot``: checkpoints, the best epoch's weights, refits and
    ``model.safetensors`` hold it like any other weight, and ``evaluation.new_users.NewUsers`` reads it from there.

    Sources: see ``FewShot``.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``MetaConfig`` too.

    Attributes:
        few_shot: the module that makes a user's vector from songs.
    """

    Config: ClassVar[type[TrainingConfig]] = MetaConfig
    config: MetaConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.few_shot = self._new_few_shot().to(self.device)
        self.model.add_module(PREFIX, self.few_shot)
        self.optimizer = self.create_optimizer()
        self._listens: GraphCache[Neighbors] = GraphCache()

    def _new_few_shot(self) -> FewShot:
        config, model = self.config, self.model.config
        unit_length = model.similarity == "cosine"
        return FewShot(model.embedding_dim, config.inner_steps, config.episode_temperature, unit_length)

    def find_earlier(self, graph: HeteroData) -> EarlierModel | None:
        """See ``BaseTrainer.find_earlier``. ``few_shot`` always starts fresh, since few models have it."""
        earlier = super().find_earlier(graph)
        if earlier is None:
            return None
        fresh = {f"{PREFIX}.{name}": value for name, value in self._new_few_shot().state_dict().items()}
        return replace(earlier, weights={**earlier.weights, **fresh})

    # Training

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the train pairs, then the episodes: ``{"loss": ..., "few_shot_loss": ...}``."""
        metrics = super().train_epoch(graph)
        return {**metrics, **self._train_on_episodes(graph)}

    def _train_on_episodes(self, graph: HeteroData) -> dict[str, float]:
        # its own stream, a new one in each epoch, so that the model's sampling is as without episodes
        generator = stream(self.config.seed, f"episodes of epoch {self.current_epoch}")
        degree = torch.from_numpy(self._train_songs(graph).degree)
        able = (degree >= 2).nonzero().squeeze(1)
        if not len(able):
            return {}
        users = user_subset(degree, able, MOST_LEFT_OUT, generator)
        songs = self._songs_without(graph, users)
        losses = [self._episode_step(graph, users, songs, generator) for _ in range(self.config.episode_steps)]
        return {"few_shot_loss": sum(losses) / len(losses)}

    def _episode_step(self, graph: HeteroData, users: Tensor, songs: Tensor, generator: torch.Generator) -> float:
        chosen = users[torch.randperm(len(users), generator=generator)[: self.config.episode_users]]
        episode = Episode.draw(self._train_songs(graph), chosen, self.config.max_known_songs, generator)
        competing = sample_songs(len(songs), self.config.num_negatives, generator)
        return self.step(self._episode_loss(graph, episode, songs, competing))

    def _episode_loss(self, graph: HeteroData, episode: Episode, songs: Tensor, competing: Tensor) -> Tensor:
        """Return the softmax loss of the songs to be found; songs of the same user do not compete, as in training."""
        users = self.few_shot(episode.known.to(songs.device), songs, competing.to(songs.device))
        rows, positives = episode.rows.to(songs.device), songs[episode.songs.to(songs.device)]
        known = known_columns(self._train_songs(graph), episode.users, competing, len(songs)).to(songs.device)
        candidates = Candidates(songs[competing.to(songs.device)], known, len(songs))
        return sampled_softmax(users, positives, rows, candidates, self.config.episode_temperature)

    @torch.no_grad()
    def _songs_without(self, graph: HeteroData, users: Tensor) -> Tensor:
        """Return the vectors (S, D) of all songs while these users' listens carry no message."""
        self.model.eval()
        pairs = train_pairs(graph)
        left_out = pairs[:, torch.isin(pairs[0], users.to(pairs.device))]
        return self.model.encode_without(graph, left_out).song

    def _train_songs(self, graph: HeteroData) -> Neighbors:
        known = self._listens.get(graph)
        if known is None:
            users, songs = train_pairs(graph).cpu().numpy()
            known = self._listens.set(graph, Neighbors.of(users, songs, int(graph["user"].num_nodes)))
        return known

    # Evaluation

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Return metrics on the validation edges: those of ``AdvancedTrainer``, and of ``few_shot_metrics``."""
        return {**super().evaluate(graph), **self.few_shot_metrics(graph, "val")}

    def test(self, graph: HeteroData) -> dict[str, float]:
        """Return the same metrics on the test edges; none if there are no such edges."""
        metrics = super().test(graph)
        return {**metrics, **self.few_shot_metrics(graph, "test")} if metrics else {}

    @torch.no_grad()
    def few_shot_metrics(self, graph: HeteroData, part: Literal["val", "test"]) -> dict[str, float]:
        """Return recall at ``eval_k`` of train users as if they were new, by adapted vectors and by mean song vectors.

        Each user has 1 to ``max_known_songs`` known train songs, and none of the user's listens carries a message. The
        train songs are hidden and the part's songs are relevant. Scores are similarities of vectors alone, since the
        local channel's paths lead through these users themselves. The songs' vectors have learned from these users, so
        the numbers compare epochs; a benchmark measures users who were held out completely.

        Returns:
            ``few_shot_recall@k`` and ``mean_of_songs_recall@k``, of at most ``num_eval_users`` users, the same in each
            call; nothing if no user has both train songs and songs of the part.
        """
        seen, relevant = self._message_graph_of(graph), part_edges(graph, part)
        generator, listens = stream(self.config.seed, "few-shot users"), self._train_songs(seen)
        users = self._pretended_users(relevant[0].unique(), torch.from_numpy(listens.degree), generator)
        if not len(users):
            return {}
        known = known_songs(listens, users, self.config.max_known_songs, generator)
        hidden, wanted = (rows_of(pairs, users) for pairs in (part_edges(graph, "train"), relevant))
        songs, few_shot = self._songs_without(seen, users).cpu(), self._few_shot_on_cpu()
        return few_shot_recall(few_shot, songs, known, hidden, wanted, self.config.eval_k)

    def _pretended_users(self, users: Tensor, degree: Tensor, generator: torch.Generator) -> Tensor:
        """Draw some of the users (B,) who have train songs, few enough that the others' messages remain."""
        able = users[degree[users] > 0]
        if not len(able):
            return able
        return sample_users(
            user_subset(degree, able, MOST_LEFT_OUT, generator), self.config.num_eval_users, self.config.seed
        )

    # Use

    def new_users(self) -> NewUsers:
        """Return what scores new users by the model as it is now, from the train edges of the trained graph.

        Raises:
            InputError: when nothing was trained yet.
        """
        if self.eval_graph is None:
            raise InputError("There is no model yet that knows songs: call train(graph, num_epochs) first.")
        graph = self.eval_graph
        return NewUsers(self.embeddings(graph).song, self._few_shot_on_cpu(), self.local_scores(graph))

    def adapt(self, songs: Tensor) -> Tensor:
        """Return the vector (D,) of a new user from known songs (k,); see ``adapt_users``."""
        return self.adapt_users([songs])[0]

    def adapt_users(self, lists: Sequence[Tensor]) -> Tensor:
        """Return the vectors (N, D) of new users, from one tensor of song indices for each.

        Each call computes all songs' vectors first: for many calls keep ``new_users()``.

        Raises:
            InputError: when nothing was trained yet, a user has no song, or an index is that of no song.
        """
        users = self.new_users()
        return users.vectors(users.known(lists))

    def recommend(self, lists: Sequence[Tensor], k: int = 10) -> Ranked:
        """Return the best k songs for each new user, without the known ones; see ``NewUsers.recommend``."""
        return self.new_users().recommend(lists, k)

    def _few_shot_on_cpu(self) -> FewShot:
        return copy.deepcopy(self.few_shot).cpu()

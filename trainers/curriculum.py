"""Curriculum learning: easy pairs first. The trainer guide has it as an example."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch_geometric.data import HeteroData

from models.base import Embeddings
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.sampling import train_pairs

Share = Annotated[float, Field(gt=0, le=1)]


class CurriculumConfig(AdvancedConfig):
    """Keys of ``curriculum``."""

    difficulty_measure: Literal["popularity", "support", "margin"] = "popularity"
    """What makes a pair hard: popularity means a song of few listeners, support a user of few songs, and margin a
    similarity that is not above that of other songs, by the model as it is when the epoch starts."""

    difficulty_schedule: tuple[Share, ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
    """Share of the train pairs, easiest first, that each stage trains on; the last stage lasts until the end."""

    epochs_per_stage: PositiveInt = 10
    """Epochs after which the schedule moves on: epoch e, counted from 1, is in stage (e - 1) // epochs_per_stage."""

    pacing: Literal["stages", "root"] = "stages"
    """stages: the schedule as it is; root: the share grows in every epoch, fast at first, from the schedule's first
    share to its last in as many epochs."""


class CurriculumTrainer(AdvancedTrainer):
    """Starts with pairs that are easy to predict and adds the harder ones stage by stage.

    ``difficulty_measure`` defines what is hard; equally hard pairs keep the order of the edges. Stage d of the schedule
    trains on the easiest share d of the pairs, while messages pass over all train edges from the start. With
    ``pacing = "root"`` the share grows in every epoch: from the schedule's first share a to its last b in T epochs,

        share(e) = sqrt(a^2 + (b^2 - a^2) (e - 1) / T),    T = epochs_per_stage (stages - 1).

    Patience counts in the last stage only: if an easy stage no longer improves, the next stage may. The learning rate
    may fall in any stage.

    Sources: Bengio et al., "Curriculum Learning", ICML 2009; Platanios et al., "Competence-based Curriculum Learning
    for Neural Machine Translation", NAACL 2019 (the root).

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``CurriculumConfig`` too.
    """

    Config: ClassVar[type[TrainingConfig]] = CurriculumConfig
    config: CurriculumConfig

    @property
    def stage(self) -> int:
        """Index into ``difficulty_schedule`` in the current epoch."""
        passed = max(0, self.current_epoch - 1) // self.config.epochs_per_stage
        return min(passed, len(self.config.difficulty_schedule) - 1)

    @property
    def share(self) -> float:
        """Share of the train pairs, easiest first, that the current epoch trains on."""
        first, last = self.config.difficulty_schedule[0], self.config.difficulty_schedule[-1]
        epochs = self._epochs_before_last_stage
        if self.config.pacing == "stages" or self.current_epoch > epochs:
            return self.config.difficulty_schedule[self.stage]
        return math.sqrt(first**2 + (last**2 - first**2) * (self.current_epoch - 1) / epochs)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the pairs of the stage: ``{"loss": ..., "difficulty": ...}``."""
        pairs, share = train_pairs(graph), self.share
        return {**self.train_on_pairs(graph, easiest(pairs, self.hardness(graph, pairs), share)), "difficulty": share}

    def hardness(self, graph: HeteroData, pairs: Tensor) -> Tensor:
        """Return the hardness of each of the train pairs (2, P) of a graph: (P,), greater is harder."""
        if self.config.difficulty_measure == "margin":
            return -margins(self.embeddings(graph), pairs)
        end = 1 if self.config.difficulty_measure == "popularity" else 0
        return -torch.bincount(pairs[end])[pairs[end]]

    def out_of_patience(self) -> bool:
        """See ``AdvancedTrainer.out_of_patience``; epochs count within the last stage only."""
        epochs_in_stage = self.current_epoch - self._epochs_before_last_stage
        return epochs_in_stage > self.config.patience and super().out_of_patience()

    @property
    def _epochs_before_last_stage(self) -> int:
        return (len(self.config.difficulty_schedule) - 1) * self.config.epochs_per_stage


def easiest(pairs: Tensor, hardness: Tensor, share: float) -> Tensor:
    """Return the ``share`` of user-song pairs (2, P) with the least ``hardness`` (P,), in edge order; at least one."""
    count = max(1, round(share * pairs.shape[1]))
    chosen = hardness.argsort(stable=True)[:count]
    return pairs[:, chosen.sort().values]


def margins(vectors: Embeddings, pairs: Tensor) -> Tensor:
    """Return how much more similar each pair (2, P) is than its user and all songs are on average: (P,).

    The mean of a user's products with all songs is the product with their mean, so no score of another song is made.
    """
    users, songs = pairs.to(vectors.device)
    found = (vectors.of_users(users) * (vectors.of_songs(songs) - vectors.song.mean(0))).sum(1)
    return found.to(pairs.device)

"""Easy pairs first: the trainer guide's example made real."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch_geometric.data import HeteroData

from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.sampling import train_pairs

Share = Annotated[float, Field(gt=0, le=1)]


class CurriculumConfig(AdvancedConfig):
    """Keys of ``curriculum``."""

    difficulty_schedule: tuple[Share, ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
    """Share of the train pairs, easiest first, that each stage trains on; the last one holds until the end."""

    epochs_per_stage: PositiveInt = 10
    """Epochs after which the schedule moves on: epoch e, counted from 1, is in stage (e - 1) // epochs_per_stage."""


class CurriculumTrainer(AdvancedTrainer):
    """Starts with pairs that are easy to predict and adds the harder ones stage by stage.

    A pair is the harder, the fewer train listeners its song has; ties go by the order of the edges. Stage d of the
    schedule trains on the easiest share d of the pairs, while messages pass over all train edges from the start.
    Patience is counted in the last stage only: an easy stage that stands still is no reason to leave out the
    next. The learning rate may fall in any stage.

    Source: Bengio et al., "Curriculum Learning", ICML 2009.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``CurriculumConfig`` too.
    """

    Config: ClassVar[type[TrainingConfig]] = CurriculumConfig
    config: CurriculumConfig

    @property
    def stage(self) -> int:
        """Index into ``difficulty_schedule`` in the current epoch."""
        passed = max(0, self.current_epoch - 1) // self.config.epochs_per_stage
        return min(passed, len(self.config.difficulty_schedule) - 1)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """One pass over the pairs of the stage: ``{"loss": ..., "difficulty": ...}``."""
        difficulty = self.config.difficulty_schedule[self.stage]
        metrics = self.train_on_pairs(graph, easiest_pairs(train_pairs(graph), difficulty))
        return {**metrics, "difficulty": difficulty}

    def out_of_patience(self) -> bool:
        """As ``AdvancedTrainer``, but counted within the last stage only."""
        last_stage = len(self.config.difficulty_schedule) - 1
        epochs_in_stage = self.current_epoch - last_stage * self.config.epochs_per_stage
        return epochs_in_stage > self.config.patience and super().out_of_patience()


def easiest_pairs(pairs: Tensor, share: float) -> Tensor:
    """The ``share`` of user-song pairs (2, P) whose songs have the most listeners, at least one pair, in edge order."""
    listeners = torch.bincount(pairs[1])[pairs[1]]
    count = max(1, round(share * pairs.shape[1]))
    chosen = listeners.argsort(descending=True, stable=True)[:count]
    return pairs[:, chosen.sort().values]

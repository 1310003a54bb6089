"""A trainer in one file: it trains more often on listens of rare songs, for services with a large back catalogue."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch_geometric.data import HeteroData

from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.sampling import train_pairs


class RareSongsConfig(AdvancedConfig):
    """Keys of ``RareSongsTrainer``."""

    rarity: float = Field(0.5, ge=0, le=1)
    """A listen counts (train listeners of its song) ** -rarity. 0: all listens are equal; 1: all songs are equal."""


class RareSongsTrainer(AdvancedTrainer):
    """An ``AdvancedTrainer`` that draws the train pairs of an epoch with replacement, rare songs more often.

    The number of pairs per epoch stays the same. Patience, scheduler, checkpoints, test metrics and the rest are
    inherited. The metric ``drawn_popularity`` is the mean number of train listeners of the drawn songs.
    """

    Config: ClassVar[type[AdvancedConfig]] = RareSongsConfig
    config: RareSongsConfig

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Train one epoch on drawn pairs; return ``loss`` and ``drawn_popularity``."""
        pairs = train_pairs(graph)
        listeners = pairs[1].bincount()[pairs[1]].double()
        drawn = self._draw(listeners**-self.config.rarity)
        losses = self.train_on_pairs(graph, pairs[:, drawn])
        return {**losses, "drawn_popularity": float(listeners[drawn].mean())}

    def _draw(self, weights: Tensor) -> Tensor:
        """Draw as many indices as there are weights (P,), each with a probability proportional to its weight."""
        ends = weights.cumsum(0)
        # self.sampling is restored when a run is resumed, so the resumed run draws the same indices
        points = torch.rand(len(weights), generator=self.sampling, dtype=torch.double).to(ends.device) * ends[-1]
        return torch.searchsorted(ends, points).clamp(max=len(weights) - 1)

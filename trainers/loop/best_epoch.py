"""The best epoch so far and its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Best:
    """Which epoch had the greatest watched metric; the first of equals.

    ``weights`` are copies on the CPU: a state dict's own tensors go on changing with the model.
    """

    epoch: int | None = None
    score: float | None = None
    weights: dict[str, Tensor] | None = None

    def update(self, epoch: int, score: float, model: nn.Module | None) -> None:
        """Take this epoch if it is better, with a copy of the weights of ``model`` if one is given; NaN never is."""
        if math.isnan(score) or (self.score is not None and score <= self.score):
            return
        self.epoch, self.score = epoch, score
        if model is not None:
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint; the keys are the arguments of this class."""
        return {"epoch": self.epoch, "score": self.score, "weights": self.weights}

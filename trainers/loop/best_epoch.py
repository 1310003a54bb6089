"""The best epoch so far and its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Best:
    """The epoch with the greatest watched metric; of equal ones the first.

    ``weights`` are the state dicts of the trained modules, by name, as copies on the CPU: a state dict's own tensors go
    on changing with the module.
    """

    epoch: int | None = None
    score: float | None = None
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def update(self, epoch: int, score: float, modules: Mapping[str, nn.Module]) -> None:
        """Take this epoch if it is better, with a copy of the weights of ``modules``; NaN is never better."""
        if math.isnan(score) or (self.score is not None and score <= self.score):
            return
        self.epoch, self.score = epoch, score
        self.weights = {
            module: {name: value.detach().cpu().clone() for name, value in trained.state_dict().items()}
            for module, trained in modules.items()
        }

    def state(self) -> dict[str, Any]:
        """Return all of it for a checkpoint; the keys are the arguments of this class."""
        return {"epoch": self.epoch, "score": self.score, "weights": self.weights}

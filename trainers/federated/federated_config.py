"""Keys of ``federated``; Flower's environment reads them too."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from trainers.advanced import AdvancedConfig


class FederatedConfig(AdvancedConfig):
    """Keys of ``federated``."""

    num_clients: PositiveInt = 20
    """Groups of users, as equal as they can be; a group's listens and user vectors stay with its client."""

    rounds_per_epoch: PositiveInt = 1
    """Rounds of Flower between two evaluations."""

    local_epochs: PositiveInt = 1
    """Passes over its listens that a client makes in a round, or a user if updates are clipped."""

    strategy: Literal["fedavg", "fedprox"] = "fedavg"
    """Flower's strategy; fedprox also keeps each client near the parameters that the round started from."""

    proximal_mu: NonNegativeFloat = 0.0
    """Weight of fedprox's squared distance to the round's start, halved."""

    server_lr: PositiveFloat = 1.0
    """Factor of fedavg for the averaged update; clipped updates are small and cancel out, and need a greater one."""

    local_optimizer: Literal["adam", "sgd"] = "adam"
    """A client's optimizer, new in each round; sgd keeps how much each song matters, which clipping needs."""

    offline_rate: float = Field(0.0, ge=0, lt=1)
    """Share of the clients that drop out of a round and do not answer; each round draws them again."""

    clipping_norm: PositiveFloat | None = None
    """Greatest length of a user's update of all shared parameters; null trains a client's users together."""

    noise_multiplier: NonNegativeFloat = 0.0
    """Standard deviation of the noise that each client adds to each number it sends, in units of clipping_norm."""

    user_rate: float = Field(1.0, gt=0, le=1)
    """Chance of each user to take part in a round of its client, if updates are clipped."""

    delta: float = Field(1e-5, gt=0, lt=1)
    """The delta at which epsilon is reported; should be far below one over the number of users."""

    runtime: Literal["in_process", "ray"] = "in_process"
    """Where Flower runs the clients: one after another in its process, or in parallel on its Ray simulation."""

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.noise_multiplier and self.clipping_norm is None:
            raise ValueError(
                "noise_multiplier is a multiple of clipping_norm, which is not set; set clipping_norm, for example 0.1"
            )
        if self.clipping_norm is None and self.user_rate != 1:
            raise ValueError("user_rate is for clipped updates; set clipping_norm or remove user_rate")
        if self.strategy == "fedprox" and self.server_lr != 1:
            raise ValueError("server_lr is for fedavg, and strategy is 'fedprox'; remove server_lr")
        if (self.strategy == "fedprox") != (self.proximal_mu > 0):
            raise ValueError(
                f"proximal_mu is {self.proximal_mu:g} with strategy '{self.strategy}'; fedprox takes a proximal_mu "
                f"above 0, fedavg takes none"
            )
        return self

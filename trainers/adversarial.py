"""For models that must hold under attack: on their vectors, and on the log that they learn from."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch_geometric.data import HeteroData

from data.graph import message_graph
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.perturbation import AdversarialObjective
from trainers.trust import NOBODY, Distrust, distrust, without_listens_of

logger = logging.getLogger(__name__)


class AdversarialConfig(AdvancedConfig):
    """Keys of ``adversarial``: two abilities, each of which can be switched off."""

    adversarial_weight: NonNegativeFloat = 0.5
    """Weight of the loss at perturbed vectors; 0 switches adversarial ranking off."""

    epsilon: PositiveFloat = 1.0
    """How far vectors are moved, in the root mean square; under cosine similarity they have length 1, and are scaled
    back to it."""

    max_distrusted: float = Field(0.02, ge=0, lt=0.5)
    """Share of the users that may be distrusted at most, however suspicious more of them are; 0 switches trust off."""

    suspicion: PositiveFloat = 5.0
    """Standard deviations above the usual from which on the agreement among a song's listeners is suspicious."""


class AdversarialTrainer(AdvancedTrainer):
    """``AdvancedTrainer`` with vectors that were trained against perturbation, and without the listens of fake users.

    The first is adversarial personalised ranking, see ``trainers.perturbation``. The second looks for users who push a
    song together, see ``trainers.trust``; their listens are neither learned from nor read when songs are scored. The
    listens that metrics are of stay the same, those of distrusted users included, so numbers can be compared with
    those of other trainers. How many users are distrusted is logged, and is a metric of every epoch.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``AdversarialConfig`` too.

    Attributes:
        distrust: whom the last ``train`` distrusted, and for which songs; nobody before the first one.
    """

    Config: ClassVar[type[TrainingConfig]] = AdversarialConfig
    config: AdversarialConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.objective = AdversarialObjective(self.config)
        self.distrust: Distrust = NOBODY

    def prepare(self, graph: HeteroData) -> HeteroData:
        """The graph with masks; decides whom to distrust, from its train edges alone."""
        graph = super().prepare(graph)
        self.distrust = distrust(message_graph(graph), self.config.max_distrusted, self.config.suspicion)
        if self.config.max_distrusted:
            logger.info(
                "%d of %d users are distrusted, for %d song(s): their listens are not learned from.",
                len(self.distrust.users),
                int(graph["user"].num_nodes),
                len(self.distrust.songs),
            )
        return graph

    def learned_graph(self, graph: HeteroData) -> HeteroData:
        """The train edges of the trusted users."""
        return without_listens_of(self.distrust.users, graph)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """One pass over the trusted train pairs: ``{"loss": ..., "distrusted_users": ...}``."""
        return {**super().train_epoch(graph), "distrusted_users": len(self.distrust.users)}

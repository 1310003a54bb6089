"""Trains models that withstand attacks: on the log that they learn from, and on their vectors."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from torch_geometric.data import HeteroData

from data.graph import message_graph
from trainers.advanced import AdvancedTrainer
from trainers.adversarial.adversarial_config import AdversarialConfig
from trainers.adversarial.fake_users import NONE_FOUND, FakeUsers, find_fake_users, without_listens_of
from trainers.adversarial.perturbation import AdversarialObjective
from trainers.config import TrainingConfig
from trainers.loop.best_epoch import Best
from trainers.loop.training_results import TrainingResults

logger = logging.getLogger(__name__)


class AdversarialTrainer(AdvancedTrainer):
    """``AdvancedTrainer`` without the listens of fake users and, if asked, with vectors trained against perturbation.

    The first defence looks for users who push a song together, see ``trainers.adversarial.fake_users``. Their listens
    are not learned from, and not read when songs are scored. The metrics still count their held-out listens, so numbers
    can be compared with those of other trainers. The number of distrusted users is logged, and is a metric of every
    epoch.

    The second is adversarial personalised ranking, see ``trainers.adversarial.perturbation``. It begins after some
    epochs of ordinary training, as He et al. begin with a trained model: vectors that are still shorter than a
    perturbation have nothing to defend, and training against it would leave them short. No epoch before that is the
    best one.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``AdversarialConfig`` too.

    Attributes:
        fake_users: the users that the last ``train`` distrusted, and their songs; none before the first training.
    """

    Config: ClassVar[type[TrainingConfig]] = AdversarialConfig
    config: AdversarialConfig
    objective: AdversarialObjective

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.objective = AdversarialObjective(self.config)
        self.fake_users: FakeUsers = NONE_FOUND

    @property
    def ordinary_epochs(self) -> int:
        """Epochs before adversarial ranking begins; 0 if it never does."""
        return self.config.adversarial_start if self.config.adversarial_weight else 0

    def train(self, graph: HeteroData, num_epochs: int) -> TrainingResults:
        """See ``BaseTrainer.train``; logs it if the training ends before adversarial ranking begins."""
        if 0 < num_epochs <= self.ordinary_epochs:
            logger.info(  # no warning: the short trainings of an audit would give one each time
                "adversarial_start is %d and there are %d epochs, so nothing is trained against perturbation; "
                "lower it or give more epochs.",
                self.config.adversarial_start,
                num_epochs,
            )
        return super().train(graph, num_epochs)

    def on_epoch_start(self) -> None:
        """Add the loss at perturbed vectors, and forget the best epoch so far, once ordinary training is over."""
        ordinary = self.ordinary_epochs
        self.objective.weight = self.config.adversarial_weight if self.current_epoch > ordinary else 0.0
        if self.current_epoch == ordinary + 1:
            self.best = Best()

    def out_of_patience(self) -> bool:
        """See ``AdvancedTrainer.out_of_patience``; epochs count after ordinary training only."""
        return self.current_epoch > self.ordinary_epochs and super().out_of_patience()

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Return the graph with masks; finds the fake users in its train edges alone."""
        graph = super().prepare(graph)
        found = find_fake_users(message_graph(graph), self.config.max_distrusted, self.config.suspicion)
        self.fake_users = found
        if self.config.max_distrusted:
            logger.info(
                "%d of %d users are distrusted, for %d song(s): their listens are not learned from.",
                len(self.fake_users.users),
                int(graph["user"].num_nodes),
                len(self.fake_users.songs),
            )
        return graph

    def learned_graph(self, graph: HeteroData) -> HeteroData:
        """Return the train edges of all other users."""
        return without_listens_of(self.fake_users.users, graph)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the train pairs of all other users: ``{"loss": ..., "distrusted_users": ...}``."""
        return {**super().train_epoch(graph), "distrusted_users": len(self.fake_users.users)}

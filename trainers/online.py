"""Online updates: goes on from an earlier model with new listens, and replays some old ones against forgetting."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import node_counts
from data.vocabulary import id_hash
from evaluation.audit.pairs import GraphPairs, contains
from evaluation.audit.seen_pairs import SeenPairs, check_seen_pairs, num_ancestors
from models.factory import create_model
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.loop.random_streams import stream_seed
from trainers.loop.training_results import TrainingResults
from trainers.sampling import train_pairs
from trainers.warm_start.transfer import EarlierModel, require_unseen

logger = logging.getLogger(__name__)


class OnlineConfig(AdvancedConfig):
    """Keys of ``online``."""

    update_lr: PositiveFloat = 0.003
    """Learning rate of an update; ``lr`` is that of a full training."""

    replay_ratio: NonNegativeFloat = 1.0
    """Old train pairs in an epoch of an update for each new one; each epoch draws them again."""

    max_updates: NonNegativeInt = 6
    """Updates in a row; the training after them is a full one. With one update a night that is once a week."""

    max_new_share: float = Field(0.25, gt=0, le=1)
    """Share of the train pairs that may be new; with more the log has drifted, and the training is a full one."""


class OnlineTrainer(AdvancedTrainer):
    """Goes on from an earlier model with the pairs that it has not learned from, in a fraction of a full training.

    Users, songs and artists keep their vectors by their ids, new ones start at the mean of their neighbours, and those
    that are gone lose their vectors (``trainers.warm_start.transfer``). An epoch goes over the new pairs and, by
    ``replay_ratio``, some old ones, drawn from all that are still in the log. Messages pass over all train pairs, so
    everything that a model computes from the graph itself is up to date. Patience, scheduler and the best epoch's
    weights are those of ``AdvancedTrainer``.

    Without an earlier model, after ``max_updates`` updates, or if more than ``max_new_share`` of the pairs are new, it
    trains as ``AdvancedTrainer`` does, from random weights on everything.

    Source of replay: Ratcliff, "Connectionist models of recognition memory", Psychological Review 1990; for
    recommenders: Diaz-Aviles et al., "Real-time top-n recommendation in social streams", RecSys 2012.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``OnlineConfig`` too.
    """

    Config: ClassVar[type[TrainingConfig]] = OnlineConfig
    config: OnlineConfig

    num_updates: int = 0
    """Updates since the last full training."""
    _is_new: Tensor | None = None
    """(P,) the train pairs that an update learns; None in a full training."""
    _predecessor: _Predecessor | None = None
    """The model that ``update`` goes on from."""

    def update(self, graph: HeteroData, new_events: pa.Table | None = None, num_epochs: int = 10) -> TrainingResults:
        """Go on from this trainer's own model, on a newer graph.

        Args:
            graph: the newer graph, of all listens that the model shall know; its nodes may be others, in another order.
            new_events: the new part of the log, with the columns ``user_id`` and ``track_id``. Its train edges are
                learned. None means all train pairs that the model has not learned from.
            num_epochs: epochs at most.

        Raises:
            InputError: nothing was trained yet, the model has seen what the graph holds out, or ``train`` would refuse.
        """
        if self.eval_graph is None:
            raise InputError("There is no model to update: call train(graph, num_epochs) before update.")
        graph, seen = self.prepare(graph), SeenPairs.of(self.eval_graph)
        require_unseen(check_seen_pairs(graph, seen))
        self._predecessor = _Predecessor(
            EarlierModel.of(self.model, self.eval_graph), seen, self.num_updates, new_events
        )
        try:
            config = {**self.model.config.model_dump(), **node_counts(graph)}
            self.model = create_model(config, stream_seed(self.config.seed, "init")).to(self.device)
            self._initial_weights = None
            return self.train(graph, num_epochs)
        finally:
            self._predecessor = None

    def find_earlier(self, graph: HeteroData) -> EarlierModel | None:
        """Return the model to go on from; None if the training has to be a full one, and the log says why."""
        self._is_new, self.num_updates = None, 0
        known = self._predecessor or self._read_predecessor(graph)
        if known is None:
            logger.info("A full training: there is no earlier model to go on from.")
            return None
        is_new = known.is_new(graph)
        if reason := self._why_full(known.num_updates, is_new):
            logger.info("A full training: %s.", reason)
            return None
        logger.info("An update: %d of %d train pairs are new.", int(is_new.sum()), len(is_new))
        self.num_updates = known.num_updates + 1
        self._is_new = is_new.to(self.device)
        return known.model

    def create_optimizer(self) -> Optimizer:
        """Return Adam, with ``update_lr`` in an update."""
        rate = self.config.lr if self._is_new is None else self.config.update_lr
        return torch.optim.Adam(self.model.parameters(), lr=rate)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass, in an update over new and replayed pairs: ``{"loss", "new_pairs", "replayed_pairs"}``."""
        if self._is_new is None:
            return super().train_epoch(graph)
        pairs = train_pairs(graph)
        new, old = pairs[:, self._is_new], self._replayed(pairs[:, ~self._is_new])
        metrics = self.train_on_pairs(graph, torch.cat([new, old], dim=1))
        return {**metrics, "new_pairs": new.shape[1], "replayed_pairs": old.shape[1]}

    def _replayed(self, old: Tensor) -> Tensor:
        """Draw some old pairs; if no pair is new, a batch of them, so that no epoch is empty."""
        new = int(self._is_new.sum()) if self._is_new is not None else 0
        count = round(self.config.replay_ratio * new) if new else self.config.batch_size
        return old[:, torch.randperm(old.shape[1], generator=self.sampling)[:count].to(old.device)]

    def _why_full(self, num_updates: int, is_new: Tensor) -> str:
        """Return why an update is not enough, or nothing if it is. A refit repeats what the first training did."""
        if self.control.replayed:
            return "" if "new_pairs" in self.control.replayed[0] else "the model that it repeats had one"
        if num_updates >= self.config.max_updates:
            return f"the earlier model was updated {num_updates} times since its last one (max_updates)"
        share = float(is_new.float().mean())
        if share > self.config.max_new_share:
            return f"{share:.0%} of the train pairs are new, more than {self.config.max_new_share:.0%} (max_new_share)"
        return ""

    def _read_predecessor(self, graph: HeteroData) -> _Predecessor | None:
        if self.config.warm_start is None:
            return None
        folder = Path(self.config.warm_start)
        seen = SeenPairs.read(folder)
        require_unseen(check_seen_pairs(graph, seen))
        return _Predecessor(EarlierModel.read(folder), seen, num_ancestors(folder))


@dataclass(frozen=True)
class _Predecessor:
    """An earlier model, the pairs it has seen, and the number of its updates since the last full training."""

    model: EarlierModel
    seen: SeenPairs
    num_updates: int
    events: pa.Table | None = None
    """Events to learn; None means all pairs that were not learned yet."""

    def is_new(self, graph: HeteroData) -> Tensor:
        """Return which train pairs of a graph with masks are to be learned, in the order of its edges: (P,) bool."""
        pairs = GraphPairs(graph)
        train = pairs.keys[pairs.in_train]
        if self.events is not None:
            return contains(pairs.keys_of_known(_of_events(self.events).nodes(graph)), train)
        return ~contains(pairs.keys_of_known(self.seen.nodes(graph)[:, self.seen.learned]), train)


def _of_events(events: pa.Table) -> SeenPairs:
    """Return the pairs of a log."""
    absent = [name for name in ("user_id", "track_id") if name not in events.column_names]
    if absent:
        raise InputError(
            f"new_events has no column '{absent[0]}', only {', '.join(events.column_names)}; "
            "give the events with user_id and track_id."
        )
    distinct = events.group_by(["user_id", "track_id"]).aggregate([])
    hashes = [[id_hash(str(value)) for value in distinct[name].to_pylist()] for name in ("user_id", "track_id")]
    none = np.zeros(len(distinct), dtype=bool)
    return SeenPairs(np.array(hashes, dtype=np.int64).reshape(2, -1), none, none)

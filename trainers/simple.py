"""The trainer for a quick try: all edges, one learning rate, nothing held out."""

from __future__ import annotations

import logging
from typing import ClassVar

from torch_geometric.data import HeteroData

from data.graph import LISTENS, MASKS, has_masks
from trainers.base import BaseTrainer
from trainers.sampling import train_pairs

logger = logging.getLogger(__name__)


class SimpleTrainer(BaseTrainer):
    """Trains on every edge with a fixed learning rate, for a quick look at a model.

    Nothing is held out, so it evaluates on its training data, and its metrics are named ``in_sample_*``: they measure
    how well the model repeats what it has learned, not how well it predicts. The masks of a graph that was split are
    ignored, which is logged.

    Args: see ``BaseTrainer``.
    """

    trains_on_everything: ClassVar[bool] = True

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Return the graph without masks."""
        if not has_masks(graph):
            return graph
        logger.warning("The simple trainer ignores the split of this graph and trains on all of its edges.")
        whole = graph.clone()
        for mask in MASKS:
            del whole[LISTENS][mask]
        return whole

    def watched_metric(self) -> str:
        """Return the config's ``monitor``, or else ``in_sample_recall@{eval_k}``."""
        return self.config.monitor or f"in_sample_recall@{self.config.eval_k}"

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over all pairs: ``{"loss": ...}``."""
        return self.train_on_pairs(graph, train_pairs(graph))

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Return in-sample metrics."""
        return self.ranking_metrics(graph, "train")

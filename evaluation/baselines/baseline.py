"""The base class of all baselines: parameters, and the fit to a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from data.config import Config

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from evaluation.ranking import Score


class Baseline(Config, ABC):
    """A baseline: its fields are the parameters, and ``fit`` learns from a graph.

    ``fit`` reads the train listens of a training graph and nothing else; in a graph without masks every listen is a
    train listen. The scores do not depend on the batch of users, and the same graph and parameters give the same
    scores.
    """

    @abstractmethod
    def fit(self, graph: HeteroData) -> Score:
        """Learn from the train listens. Return a score function, users (B,) to (B, S); see ``evaluation.ranking``."""

    def why_not(self, graph: HeteroData) -> str:
        """Return a sentence that says why the baseline cannot be fitted to the graph; empty if it can."""
        return ""

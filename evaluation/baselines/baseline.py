"""What every baseline is: its parameters, whether it can be fitted to a graph, and the fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from data.config import Config

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from evaluation.ranking import Score


class Baseline(Config, ABC):
    """The parameters of a baseline, which knows how to fit itself.

    A fit reads the train listens of a training graph and nothing else; in a graph without masks every listen is a train
    listen. The scores do not depend on the batch of users, and the same graph and parameters give the same scores.
    """

    @abstractmethod
    def fit(self, graph: HeteroData) -> Score:
        """Learn from the train listens; what comes back scores users (B,) as (B, S), see ``evaluation.ranking``."""

    def why_not(self, graph: HeteroData) -> str:
        """Why this baseline cannot be fitted to the graph, as a sentence; empty where it can."""
        return ""

"""The trainer for models that are put to use: held-out edges, early stopping, a falling learning rate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch_geometric.data import HeteroData

from data.graph import LISTENS, has_masks
from data.search import Range
from data.split import SplitConfig
from data.training_graph import split_graph
from trainers.base import BaseTrainer
from trainers.config import TrainingConfig
from trainers.sampling import train_pairs


class AdvancedConfig(TrainingConfig):
    """Keys of ``advanced``."""

    patience: PositiveInt = 5
    """Epochs without a better watched metric after which the training stops."""

    val_ratio: float = Field(0.15, ge=0, lt=1)
    """Share of the pairs held out for validation, if the graph has no masks yet."""

    test_ratio: float = Field(0.15, ge=0, lt=1)
    """Share of the pairs held out for the test at the end, if the graph has no masks yet."""

    use_scheduler: bool = True
    """Lower the learning rate when the watched metric no longer rises."""

    min_lr: NonNegativeFloat = 1e-4
    """Lowest learning rate of the scheduler."""

    lr_factor: Annotated[float, Range(0.2, 0.8)] = Field(0.5, gt=0, lt=1)
    """Factor by which the scheduler multiplies the learning rate."""

    lr_patience: NonNegativeInt = 3
    """Epochs without a better watched metric that the scheduler lets pass."""

    @model_validator(mode="after")
    def _ratios_leave_train_data(self) -> Self:
        self.split_config()
        return self

    def split_config(self) -> SplitConfig:
        """Return how a graph without masks is split; raises InputError for ratios that leave no train data."""
        ratios = {"val_ratio": self.val_ratio, "test_ratio": self.test_ratio}
        return SplitConfig.parse(ratios, "the split")


class AdvancedTrainer(BaseTrainer):
    """Trains on train edges, stops when validation no longer improves, and reports the best epoch's test metrics.

    A graph without masks is split at random with ``val_ratio`` and ``test_ratio``, by the hash of the ids. The watched
    metric is ``recall@{eval_k}`` on the validation edges of ``num_eval_users`` users, the same in each epoch. When
    ``train`` returns, the model has the weights of the best epoch.

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``AdvancedConfig`` too.
    """

    Config: ClassVar[type[TrainingConfig]] = AdvancedConfig
    config: AdvancedConfig
    restores_best: ClassVar[bool] = True

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Return the graph with masks."""
        return graph if has_masks(graph) else split_graph(graph, self.config.split_config())

    def create_scheduler(self) -> ReduceLROnPlateau | None:
        """Return ReduceLROnPlateau on the watched metric; None if ``use_scheduler`` is false."""
        config = self.config
        if not config.use_scheduler:
            return None
        return ReduceLROnPlateau(self.optimizer, "max", config.lr_factor, config.lr_patience, min_lr=config.min_lr)

    def watched_metric(self) -> str:
        """Return the config's ``monitor``, or else ``recall@{eval_k}``."""
        return self.config.monitor or f"recall@{self.config.eval_k}"

    def out_of_patience(self) -> bool:
        """Return whether the best epoch is ``patience`` epochs ago."""
        return self.best.epoch is not None and self.current_epoch - self.best.epoch >= self.config.patience

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the train pairs: ``{"loss": ...}``."""
        return self.train_on_pairs(graph, train_pairs(graph))

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Return metrics on the validation edges."""
        return self.ranking_metrics(graph, "val")

    def test(self, graph: HeteroData) -> dict[str, float]:
        """Return metrics on the test edges; none if there are no such edges."""
        if not graph[LISTENS].test_mask.any():
            return {}
        return self.ranking_metrics(graph, "test")

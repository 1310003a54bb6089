"""Keys of ``training_config`` that every trainer understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data.config import Config
from data.search import Choices, Range


class TrainingConfig(Config):
    """Common keys; the class attribute ``Config`` of a trainer names the class with all of its keys."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"fan_out": "num_neighbors"}

    lr: Annotated[PositiveFloat, Range(1e-3, 0.05, log=True)] = 0.01
    """Learning rate of Adam; the first one if a scheduler lowers it."""

    batch_size: Annotated[PositiveInt, Choices(512, 2048, 8192, 32768)] = 512
    """User-song pairs in a step."""

    eval_k: PositiveInt = 10
    """Length of the ranked list that the metrics look at."""

    num_eval_users: PositiveInt | None = 100
    """Users that evaluation during training samples, once; null, or a number above that of the users, means all."""

    seed: NonNegativeInt = 0
    """Start of the three random streams: weights, sampling, evaluation."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one."""

    resume: bool = True
    """Go on from the checkpoint of an unfinished run with the same config, graph and code."""

    warm_start: str | None = Field(None, min_length=1)
    """Start from the weights of an earlier model, matched by the ids of users, songs and artists: the folder of its
    bundle; in a flow also ``champion`` or a version. Null starts from random weights."""

    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: the positive against many sampled songs; bpr: the positive against one."""

    temperature: Annotated[PositiveFloat, Range(0.05, 0.5, log=True)] = 0.1
    """Scores are divided by it in the loss; near 0.1 for cosine scores."""

    num_negatives: Annotated[NonNegativeInt, Choices(256, 1024, 4096)] = 1024
    """Songs that the softmax samples for each batch; 0 means all songs. Not for bpr, which takes one a pair."""

    l2: Annotated[NonNegativeFloat, Range(1e-7, 1e-3, log=True)] = 1e-5
    """Weight of the squared input vectors of a batch, averaged over its pairs and halved."""

    calibration_ratio: float = Field(0.05, gt=0, lt=1)
    """Share of the train pairs that vectors do not learn from; a model with a local channel learns from them how much
    to trust each channel."""

    num_neighbors: list[PositiveInt] | None = Field(None, min_length=1)
    """Neighbours that a step samples of each node, one number for each layer, the layer nearest to the result first;
    null means all neighbours of all nodes. With samples the memory of a step does not grow with the graph."""

    monitor: str | None = Field(None, min_length=1)
    """Metric to watch, greater is better; null means the trainer's own, for example ``recall@{eval_k}``."""

    histograms: bool = False
    """Show TensorBoard each parameter's values and its last gradient after each epoch."""

    @model_validator(mode="after")
    def _bpr_takes_one_negative(self) -> Self:
        if self.loss == "bpr" and "num_negatives" in self.model_fields_set:
            raise ValueError("num_negatives is for the softmax loss; bpr takes one negative a pair, so remove the key")
        return self

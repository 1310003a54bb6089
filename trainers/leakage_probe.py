"""The training that an audit watches: a few steps of any trainer, told by digests."""

from __future__ import annotations

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import graph_digest, update_digest
from evaluation.audit.planting import Digests, Probe
from trainers.base import BaseTrainer
from trainers.factory import parse_training_config, trainer_class, trains_on_everything
from trainers.sampling import KnownPairs, train_pairs

EPOCHS = 2
"""What an evaluation or a hook of the first epoch leaves behind shows in the second."""
BATCH_SIZE = 512
EVAL_USERS = 10


class TrainerProbe(Probe):
    """Trains with a run's own trainer, model and seed, on the CPU, with less to do in a step.

    Digests: ``messages`` (the graph that ``train_epoch`` was given), ``training pairs`` (those that
    ``train_on_pairs`` was given) and ``known pairs`` (what ``KnownPairs`` makes of the graph given, which negatives
    avoid) where the trainer asks for them, ``embeddings`` (what evaluation ranks by, vectors and local channel,
    messages at that time included) and ``weights`` after each epoch and at the end.

    Args: see ``evaluation.audit.planting.Probe``.
    """

    def __init__(self, trainer: str, model_config: Mapping[str, Any], training_config: Mapping[str, Any]) -> None:
        self.trainer, self.model_config, self.training_config = trainer, model_config, training_config

    @property
    def trains_on_everything(self) -> bool:
        """See ``Probe.trains_on_everything``."""
        return trains_on_everything(self.trainer)

    def __call__(self, graph: HeteroData) -> Digests:
        """Train ``EPOCHS`` epochs on a graph of a few thousand pairs; see ``Probe.__call__``."""
        counts = {f"num_{kind}s": int(graph[kind].num_nodes) for kind in ("user", "song", "artist")}
        watched: Any = type("Watched", (_Watched, trainer_class(self.trainer)), {"__module__": __name__})
        with TemporaryDirectory() as folder, _quiet():
            trainer = watched(
                model_config={**self.model_config, **counts},
                training_config=self._less_work(counts["num_songs"]),
                output_dir=folder,
            )
            trainer.train(graph, num_epochs=EPOCHS)
        return trainer.witness.digests(trainer)

    def _less_work(self, num_songs: int) -> dict[str, Any]:
        """The run's training_config on a small graph: fewer pairs a step and users to evaluate, on the CPU."""
        given = parse_training_config(self.trainer, self.training_config)
        less: dict[str, Any] = {"batch_size": min(given.batch_size, BATCH_SIZE), "num_eval_users": EVAL_USERS}
        less |= {"device": "cpu", "resume": False, "histograms": False}
        if given.eval_k > num_songs:
            less |= {"eval_k": num_songs, "monitor": None}
        return {**self.training_config, **less}


class _Witness:
    """Digests, by name, of everything that a training showed."""

    def __init__(self) -> None:
        self._seen: dict[str, list[str]] = defaultdict(list)

    def saw(self, name: str, digest: str) -> None:
        self._seen[name].append(digest)

    def digests(self, trainer: BaseTrainer) -> dict[str, str]:
        """One digest a name; final weights that are those of an epoch add nothing.

        Which epoch is the best is for validation to choose.
        """
        final = _weights(trainer)
        if final not in self._seen["weights"]:
            self.saw("weights", final)
        return {name: hashlib.sha256("".join(found).encode()).hexdigest() for name, found in self._seen.items()}


class _Watched(BaseTrainer):
    """Stands before the trainer's own class, and tells a witness what passes by. It never stops early."""

    def __init__(self, **arguments: Any) -> None:  # by name, since a trainer of somebody's may take nothing else
        super().__init__(**arguments)
        self.witness = _Witness()

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        self.witness.saw("messages", graph_digest(graph))
        metrics: dict[str, float] = super().train_epoch(graph)  # type: ignore[safe-super]  # the trainer's own
        self.witness.saw("weights", _weights(self))
        return metrics

    def train_on_pairs(self, graph: HeteroData, pairs: Tensor) -> dict[str, float]:
        self.witness.saw("training pairs", _digest(pairs))
        self.witness.saw("known pairs", _digest(KnownPairs(train_pairs(graph), int(graph["song"].num_nodes)).keys))
        return super().train_on_pairs(graph, pairs)

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(graph)  # type: ignore[safe-super]
        self.witness.saw("embeddings", _digest(*self.embeddings(graph), *self._local_arrays(graph)))
        return metrics

    def _local_arrays(self, graph: HeteroData) -> list[Tensor]:
        local = self.local_scores(graph)
        return [torch.from_numpy(array.copy()) for _, array in sorted(local.arrays().items())] if local else []

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        super().on_epoch_end(train_metrics, eval_metrics)
        self.witness.saw("weights", _weights(self))
        return False

    def out_of_patience(self) -> bool:
        return False


def _weights(trainer: BaseTrainer) -> str:
    state = trainer.model.state_dict()
    return _digest(*(state[name] for name in sorted(state)))


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        update_digest(digest, tensor)
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no line an epoch: three short trainings would look like the one that was asked for."""
    trainers = logging.getLogger("trainers")
    level = trainers.level
    trainers.setLevel(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        trainers.setLevel(level)

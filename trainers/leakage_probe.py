"""A few training steps of any trainer for the leakage audit, recorded as digests."""

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
"""Two: the second epoch shows what an evaluation or a hook of the first one has changed."""
BATCH_SIZE = 512
EVAL_USERS = 10


class TrainerProbe(Probe):
    """Trains with a run's own trainer, model and seed, on the CPU, with small batches.

    Digests: ``messages`` (the graph that ``train_epoch`` gets), ``training pairs`` (those that ``train_on_pairs`` gets)
    and ``known pairs`` (those of the same graph, which negatives avoid) if the trainer calls it, ``embeddings`` (the
    vectors and the local channel that evaluation ranks by), and ``weights`` after each epoch and at the end.

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
        recording: Any = type("Recording", (_Recording, trainer_class(self.trainer)), {"__module__": __name__})
        with TemporaryDirectory() as folder, _quiet():
            trainer = recording(
                model_config={**self.model_config, **counts},
                training_config=self._less_work(counts["num_songs"]),
                output_dir=folder,
            )
            trainer.train(graph, num_epochs=EPOCHS)
        return trainer.record.digests(trainer)

    def _less_work(self, num_songs: int) -> dict[str, Any]:
        """Return the run's training_config for a small graph: small batches, few users to evaluate, on the CPU."""
        given = parse_training_config(self.trainer, self.training_config)
        less: dict[str, Any] = {"batch_size": min(given.batch_size, BATCH_SIZE), "num_eval_users": EVAL_USERS}
        less |= {"device": "cpu", "resume": False, "histograms": False}
        if given.eval_k > num_songs:
            less |= {"eval_k": num_songs, "monitor": None}
        return {**self.training_config, **less}


class _DigestRecord:
    """Collects digests of what a training reads and makes, by name."""

    def __init__(self) -> None:
        self._digests: dict[str, list[str]] = defaultdict(list)

    def add(self, name: str, digest: str) -> None:
        self._digests[name].append(digest)

    def digests(self, trainer: BaseTrainer) -> dict[str, str]:
        """Return one digest a name. Final weights that are those of an epoch add nothing.

        Validation may choose which epoch is the best, so that choice is no leak.
        """
        final = _weights(trainer)
        if final not in self._digests["weights"]:
            self.add("weights", final)
        return {name: hashlib.sha256("".join(found).encode()).hexdigest() for name, found in self._digests.items()}


class _Recording(BaseTrainer):
    """Comes before the trainer's own class, records what it reads and makes, and never stops early."""

    def __init__(self, **arguments: Any) -> None:  # by name: a custom trainer may take nothing else
        super().__init__(**arguments)
        self.record = _DigestRecord()

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        self.record.add("messages", graph_digest(graph))
        metrics: dict[str, float] = super().train_epoch(graph)  # type: ignore[safe-super]  # the trainer's own
        self.record.add("weights", _weights(self))
        return metrics

    def train_on_pairs(self, graph: HeteroData, pairs: Tensor) -> dict[str, float]:
        self.record.add("training pairs", _digest(pairs))
        self.record.add("known pairs", _digest(KnownPairs(train_pairs(graph), int(graph["song"].num_nodes)).keys))
        return super().train_on_pairs(graph, pairs)

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(graph)  # type: ignore[safe-super]
        local = self.local_scores(graph)
        arrays = sorted(local.arrays().items()) if local else []
        tensors = [torch.from_numpy(array.copy()) for _, array in arrays]
        self.record.add("embeddings", _digest(*self.embeddings(graph), *tensors))
        return metrics

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        super().on_epoch_end(train_metrics, eval_metrics)
        self.record.add("weights", _weights(self))
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
    """Show no progress bars and log no epochs, since these short trainings are not the run's own."""
    trainers = logging.getLogger("trainers")
    level = trainers.level
    trainers.setLevel(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        trainers.setLevel(level)

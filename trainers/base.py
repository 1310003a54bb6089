"""The training loop, written once; trainers differ in the work of an epoch and in its evaluation."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, graph_digest, has_masks, message_graph
from evaluation.evaluation import evaluate
from evaluation.ranking import Score, check_k
from evaluation.vector_scores import VectorScores
from models.base import Embeddings
from models.factory import create_model
from models.item_paths.listened_songs import listened_songs
from models.item_paths.local_scorer import LocalScorer
from trainers.config import TrainingConfig
from trainers.loop.best_epoch import Best
from trainers.loop.checkpoint import CheckpointFile, fingerprint
from trainers.loop.epoch_control import EpochControl
from trainers.loop.model_files import write_model
from trainers.loop.progress import TrainingProgress
from trainers.loop.random_streams import global_state, own_global_stream, restore_global_state, stream, stream_seed
from trainers.loop.tensorboard import TensorBoard
from trainers.loop.training_results import EpochCallback, EpochRecord, TrainingResults
from trainers.names import trainer_name
from trainers.objective import PairObjective, check_num_neighbors
from trainers.refit import ReplayedEpochs, with_all_for_training
from trainers.sampling import batches, num_batches
from trainers.warm_start.transfer import EarlierModel, check_unseen, start_from

logger = logging.getLogger(__name__)


class BaseTrainer(ABC):
    """Trains one model on one graph; inherit from it to train in a way of your own.

    A subclass implements ``train_epoch`` and ``evaluate`` and may override the hooks ``on_epoch_start`` and
    ``on_epoch_end``, and ``extra_state`` and ``load_extra_state`` if it has state that a resumed run needs. The loop,
    the optimizer, checkpoints, history and TensorBoard are here, and nowhere else.

    Args:
        model_config: keys of the model, see ``models.factory.create_model``.
        training_config: keys of the class attribute ``Config``.
        output_dir: folder of the checkpoints.
        tensorboard_dir: folder of TensorBoard's event files; none are written without it.

    Attributes:
        model: the model, on ``device``.
        optimizer: Adam over the model's parameters, new at each start of ``train``.
        config: the validated ``training_config``.
        current_epoch: 0 before training, 1 in the first epoch.
        history: one record an epoch: ``epoch``, ``lr`` and the epoch's metrics.
        sampling: the random stream of batches and negatives.
        message_graph: what the model learns from and scores by: the users, songs, artists and train edges of the graph
            that ``train`` got, on ``device``. There is none before ``train``. Nothing held out is in it.
        eval_graph: what the model is measured on: the graph that ``train`` got, as ``prepare`` returned it, with the
            masks of the held-out edges if it has any. None before ``train``.
        epoch_callback: is called with the history after each epoch, and stops the training by returning True; none
            unless a search sets one.
        earlier: the model whose weights the training starts from, if ``warm_start`` names one.
        tests_at_end: call ``test`` at the end; a search, which chooses on validation alone, sets it to False.

    Raises:
        InputError: for a key or value that is not allowed.
    """

    Config: ClassVar[type[TrainingConfig]] = TrainingConfig
    restores_best: ClassVar[bool] = False
    """True if the best epoch's weights are put back at the end."""
    trains_on_everything: ClassVar[bool] = False
    """True if held-out edges are trained on too, so that no number of this trainer is out of sample."""

    def __init__(
        self,
        model_config: Mapping[str, Any],
        training_config: Mapping[str, Any],
        output_dir: str | Path = "artifacts/training",
        tensorboard_dir: str | Path | None = None,
    ) -> None:
        self.config = self.Config.parse(training_config, "training_config")
        self.output_dir, self.tensorboard_dir = Path(output_dir), tensorboard_dir
        if self.config.histograms and tensorboard_dir is None:
            raise InputError("histograms are for TensorBoard; name its folder with tensorboard_dir, or remove the key.")
        self.device = choose_device(self.config.device)
        self.model = create_model(model_config, stream_seed(self.config.seed, "init")).to(self.device)
        self.message_graph: HeteroData
        self.eval_graph: HeteroData | None = None
        self.optimizer = self.create_optimizer()
        self.scheduler: ReduceLROnPlateau | None = None
        self.objective = PairObjective(self.config)
        self.progress = TrainingProgress(0)
        self.current_epoch = self.current_batch = 0
        self._stop = False
        self.history: list[EpochRecord] = []
        self.best = Best()
        self.sampling = stream(self.config.seed, "sampling")
        self.epoch_callback: EpochCallback | None = None
        self.tests_at_end = True
        self._initial_weights: dict[str, Tensor] | None = None
        self.control = EpochControl()
        self.earlier: EarlierModel | None = None

    # What a subclass implements

    @abstractmethod
    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Train one epoch and return its metrics, for example ``{"loss": 0.3}``.

        Args:
            graph: what a model may see: node counts and train edges with their weights. Nothing held out is in it.
        """

    @abstractmethod
    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Measure the model and return its metrics.

        Args:
            graph: the training graph with its masks, if it has any.
        """

    # What a subclass may override

    def on_epoch_start(self) -> None:  # noqa: B027 (a hook may stay empty)
        """Do nothing; called when an epoch starts, after ``current_epoch`` is counted up."""

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        """Return False; called when an epoch ends, and True stops the training."""
        return False

    def extra_state(self) -> dict[str, Any]:
        """Return a subclass's own state for checkpoints, none here: tensors and plain Python values only."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore what ``extra_state`` returned, in a run that is resumed; nothing here."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Return the graph that a run works on, made from the graph that ``train`` got: the same graph here."""
        return graph

    def find_earlier(self, graph: HeteroData) -> EarlierModel | None:
        """Return the model whose weights the training starts from: here the one that ``warm_start`` names.

        Raises:
            InputError: it cannot be read, or has seen what the graph holds out.
        """
        if self.config.warm_start is None:
            return None
        check_unseen(Path(self.config.warm_start), graph)
        return EarlierModel.read(Path(self.config.warm_start))

    def learned_graph(self, graph: HeteroData) -> HeteroData:
        """Return what the model learns from and scores by: all train edges of a graph; a subclass may leave some out.

        Metrics do not depend on it: they rank, hide and count by the masks of ``graph``.
        """
        return message_graph(graph)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return what is trained, by name: the model here. The best epoch's weights of all of it are put back."""
        return {"model": self.model}

    def create_optimizer(self) -> Optimizer:
        """Return Adam over all parameters with the config's learning rate."""
        return torch.optim.Adam(self.model.parameters(), lr=self.config.lr)

    def create_scheduler(self) -> ReduceLROnPlateau | None:
        """Return what lowers the learning rate when the watched metric no longer rises: None here."""
        return None

    def watched_metric(self) -> str | None:
        """Return the name of the metric that decides which epoch is the best, greater is better; None for no metric."""
        return self.config.monitor

    def out_of_patience(self) -> bool:
        """Return whether the watched metric has not risen for too long: never here."""
        return False

    def test(self, graph: HeteroData) -> dict[str, float]:
        """Return metrics of the finished model on what was held out for the end: none here."""
        return {}

    # What a subclass uses

    def step(self, loss: Tensor) -> float:
        """Take one optimizer step down the gradient of ``loss``, and return the value of the loss.

        Raises:
            InputError: when the loss is not a finite number.
        """
        self.current_batch += 1
        value = float(loss.detach())
        self._require_finite(value, f"batch {self.current_batch}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.progress.loss(value)
        return value

    def train_on_pairs(self, graph: HeteroData, pairs: Tensor) -> dict[str, float]:
        """Take the steps of an epoch over user-song pairs (2, P) in random order; return the mean loss of a pair."""
        self.model.train()
        total = 0.0
        given = batches(pairs, self.config.batch_size, self.sampling)
        for users, songs in self.progress.track(given, num_batches(pairs, self.config.batch_size)):
            loss = self.objective.loss(self.model, graph, users, songs, self.sampling)
            total += self.step(loss) * len(users)
        return {"loss": total / pairs.shape[1]}

    def ranking_metrics(self, graph: HeteroData, part: Literal["train", "val", "test"]) -> dict[str, float]:
        """Return recall, NDCG, precision, MRR, MAP and hit rate at ``eval_k`` of a part, for the sampled users."""
        config = self.config
        return evaluate(self.score(graph), graph, part, config.eval_k, config.num_eval_users, config.seed).mean()

    def score(self, graph: HeteroData) -> Score:
        """Return the model's score function as it is now, from train edges only."""
        return VectorScores(*self.embeddings(graph), self.local_scores(graph))

    def local_scores(self, graph: HeteroData) -> LocalScorer | None:
        """Return the local channel of the model as it is now; None if it has none."""
        if self.model.local is None:
            return None
        return self.model.local.scorer(listened_songs(self._message_graph_of(graph)))

    @torch.no_grad()
    def embeddings(self, graph: HeteroData) -> Embeddings:
        """Return a copy of the model's vectors as they are now, on the CPU; they are made from train edges only."""
        self.model.eval()
        user, song = self.model.encode(self._message_graph_of(graph))
        return Embeddings(*(rows.detach().cpu().clone() for rows in (user, song)))  # of `mf` they are the table itself

    # The loop

    def train(self, graph: HeteroData, num_epochs: int) -> TrainingResults:
        """Train until epoch ``num_epochs``, or until a hook or the trainer's patience stops the training.

        A run that was cut off goes on from its last checkpoint (unless ``resume`` is false), and ends with the same
        weights as a run that was not. A finished run goes on with a greater ``num_epochs``, and starts again with the
        same number.

        Args:
            graph: a ``HeteroData`` as ``data.graph`` describes it.
            num_epochs: the last epoch, counted from the very start; at least 1.

        Raises:
            InputError: when graph and config do not fit together, or the loss stops being a number.
        """
        return self._run(self.prepare(graph), num_epochs, EpochControl())

    def refit(self, graph: HeteroData, history: Sequence[EpochRecord]) -> TrainingResults:
        """Train once more on all listens, epoch by epoch as the first training went up to its chosen epoch.

        There are as many epochs as records in ``history``, and each epoch has the learning rate of its record, whatever
        a scheduler or ``on_epoch_start`` would set. Nothing is held out, so nothing is measured: ``evaluate`` and
        ``test`` are not called, no epoch is the best, nothing stops early, and the last weights stay. Both hooks are
        called; ``on_epoch_end`` gets the first training's evaluation metrics of that epoch, and cannot stop the refit.
        A refit that was cut off goes on from its last checkpoint, as ``train`` does.

        Args:
            graph: the whole graph, without masks.
            history: the records of the first training, see ``chosen_history``.

        Raises:
            InputError: when the trainer trains on everything anyway, the graph is split, or ``train`` would refuse.
        """
        if self.trains_on_everything:
            raise InputError(
                f"{type(self).__name__} trains on all listens already, so there is nothing to refit; keep its model."
            )
        control = ReplayedEpochs(history)
        whole = self.prepare(with_all_for_training(graph))
        if has_masks(whole) and not bool(whole[LISTENS].train_mask.all()):
            raise InputError(
                f"prepare of {type(self).__name__} holds out listens of a refit, which trains on all of them; "
                "let it keep the masks that a graph has."
            )
        return self._run(whole, len(history), control)

    @classmethod
    def chosen_history(cls, history: Sequence[EpochRecord], results: Mapping[str, Any]) -> list[EpochRecord]:
        """Return the epochs that made the weights of a finished training: what ``refit`` repeats.

        These are the epochs up to the best one if the trainer puts the best weights back, and all epochs otherwise.

        Args:
            history: one record an epoch, as ``train`` returns them.
            results: ``best_epoch`` and ``epochs_run``, as ``train`` returns them.
        """
        best = results["best_epoch"] if cls.restores_best else None
        return [dict(record) for record in history[: best or results["epochs_run"]]]

    def _run(self, graph: HeteroData, num_epochs: int, control: EpochControl) -> TrainingResults:
        """Run the epochs on a prepared graph: the loop of ``train`` and of ``refit``."""
        self.control = control
        self._check(graph, num_epochs)
        self.earlier = self.find_earlier(graph)
        with ExitStack() as stack:
            stack.enter_context(own_global_stream(stream_seed(self.config.seed, "model"), self.device))
            checkpoint = CheckpointFile(self.output_dir, self._fingerprint(graph))
            self._start(graph, checkpoint, num_epochs)
            self.progress = stack.enter_context(TrainingProgress(num_epochs, self.current_epoch + 1))
            board = stack.enter_context(TensorBoard(self.tensorboard_dir, self.current_epoch))
            while self.current_epoch < num_epochs and not self._stop:
                self.current_epoch, self.current_batch = self.current_epoch + 1, 0
                self.on_epoch_start()
                control.set_learning_rate(self.current_epoch, self.optimizer)
                rate = self.optimizer.param_groups[0]["lr"]
                train_metrics = _as_floats(self.train_epoch(self.message_graph))
                self._require_finite(train_metrics.get("loss", 0.0), "on average")
                eval_metrics = control.measure(self._measured, graph)
                self.history.append({"epoch": self.current_epoch, "lr": rate, **train_metrics, **eval_metrics})
                known = control.metrics_for_hook(self.current_epoch, train_metrics, eval_metrics)
                asked = bool(self.on_epoch_end(train_metrics, known))
                self._stop = control.stops(partial(self._is_over, asked))
                checkpoint.save(self._state(num_epochs))
                board.epoch(self.history[-1])
                if self.config.histograms:
                    board.histograms(self.current_epoch, self.model)
                self.progress.epoch(self.current_epoch, self._headline())
            results = self._finish(graph, num_epochs, checkpoint)
            board.result(self._described_config(), results)
        return results

    def _measured(self, graph: HeteroData) -> dict[str, float]:
        """Evaluate, remember the epoch if it is the best so far, and let the scheduler see the watched metric."""
        metrics, name = _as_floats(self.evaluate(graph)), self.watched_metric()
        if name is None:
            return metrics
        if name not in metrics:
            raise InputError(f"The watched metric '{name}' does not exist; set monitor to one of {', '.join(metrics)}.")
        self.best.update(self.current_epoch, metrics[name], self.trained_modules() if self.restores_best else {})
        if self.scheduler:
            self.scheduler.step(metrics[name])
        return metrics

    def _is_over(self, asked: bool) -> bool:
        """Return whether the hook, the callback or the patience ends the training; the callback sees every epoch."""
        called_off = bool(self.epoch_callback(self.history)) if self.epoch_callback else False
        return asked or called_off or self.out_of_patience()

    def _finish(self, graph: HeteroData, num_epochs: int, checkpoint: CheckpointFile) -> TrainingResults:
        for name, weights in self.best.weights.items():
            self.trained_modules()[name].load_state_dict(weights)
        test = self.control.measure(self.test, graph) if self.tests_at_end else {}
        checkpoint.finish()
        return {
            "history": [dict(record) for record in self.history],
            "best_epoch": self.best.epoch,
            "best_metric": self.best.score,
            "epochs_run": self.current_epoch,
            "stopped_early": self._stop and self.current_epoch < num_epochs,
            "test": test,
            "checkpoint": str(checkpoint.finished),
        }

    # Start, checkpoint, resume

    def _check(self, graph: HeteroData, num_epochs: int) -> None:
        if num_epochs < 1:
            raise InputError(f"num_epochs is {num_epochs}; give at least 1.")
        self.model.check_graph(graph)
        check_num_neighbors(self.config.num_neighbors, self.model)
        check_k(self.config.eval_k, int(graph["song"].num_nodes))

    def _start(self, graph: HeteroData, checkpoint: CheckpointFile, num_epochs: int) -> None:
        """Set everything that a training changes to its start, or to where the checkpoint left off."""
        self.message_graph, self.eval_graph = self.learned_graph(graph).to(self.device), graph
        if self.message_graph[LISTENS].edge_index.shape[1] == 0:
            raise InputError("The graph has no train edge, so there is nothing to learn from; hold out less.")
        if self._initial_weights is None:
            self._initial_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self._initial_weights)
        if self.earlier:
            self.model.load_state_dict(start_from(self.earlier, self.model, graph))
        self.optimizer = self.create_optimizer()
        self.scheduler = self.control.create_scheduler(self.create_scheduler)
        self.sampling = stream(self.config.seed, "sampling")
        self.current_epoch, self._stop = 0, False
        self.history, self.best = [], Best()
        for name in checkpoint.others():
            logger.info("%s is of another config, graph or code; it is left alone.", name)
        state = checkpoint.load(num_epochs) if self.config.resume else None
        if state is not None:
            self._restore(state)
            logger.info("Resuming after epoch %d of %d.", self.current_epoch, num_epochs)

    def _state(self, num_epochs: int) -> dict[str, Any]:
        return {
            "epoch": self.current_epoch,
            "num_epochs": num_epochs,
            "stop": self._stop,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "random": {"global": global_state(self.device), "sampling": self.sampling.get_state()},
            "best": self.best.state(),
            "history": self.history,
            "extra": self.extra_state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        restore_global_state(state["random"]["global"], self.device)
        self.sampling.set_state(state["random"]["sampling"])
        self.best = Best(**state["best"])
        self.current_epoch, self._stop = state["epoch"], state["stop"]
        self.history = state["history"]
        self.load_extra_state(state["extra"])

    def _fingerprint(self, graph: HeteroData) -> str:
        computed = self._described_config() | {"device": self.device.type, "replayed": self.control.replayed}
        return fingerprint(computed, graph_digest(graph), [type(self), type(self.model)])

    def _described_config(self) -> dict[str, Any]:
        """Return what made the model: trainer, configs, and the digest of the model that it started from."""
        return {
            "trainer": trainer_name(type(self)),
            "model_config": self.model.config.model_dump(mode="json"),
            "training_config": self.config.model_dump(mode="json", exclude={"resume", "warm_start", "histograms"}),
        } | ({"warmed_from": self.earlier.digest} if self.earlier else {})

    # Output

    def save_model(self, folder: str | Path) -> Path:
        """Write the trained model into ``folder``, the same bytes for the same run.

        Files: ``model.safetensors`` (weights), ``embeddings.safetensors`` (``user`` (U, D) and ``song`` (S, D), whose
        dot product is the similarity), ``local.safetensors`` (what makes the score from it, only of a model with a
        local channel; without one the similarity is the score), ``config.json`` (trainer, model_config,
        training_config; of a refit also ``refit`` and its ``num_epochs``), ``history.json``.

        Raises:
            InputError: when nothing was trained yet.
        """
        if self.eval_graph is None:
            raise InputError("There is nothing to save: call train(graph, num_epochs) before save_model.")
        embeddings = self.embeddings(self.eval_graph)
        local = self.local_scores(self.eval_graph)
        return write_model(
            Path(folder),
            self.model,
            embeddings,
            local,
            {**self._described_config(), **self.control.facts},
            self.history,
        )

    # Small things

    def _message_graph_of(self, graph: HeteroData) -> HeteroData:
        """Return what the model may read of a graph; for the graph of the training it is there already."""
        return self.message_graph if graph is self.eval_graph else self.learned_graph(graph).to(self.device)

    def _headline(self) -> dict[str, float]:
        """Return the last epoch's metrics, the loss and the watched one first."""
        last = {name: value for name, value in self.history[-1].items() if name not in ("epoch", "lr")}
        first = [name for name in ("loss", self.watched_metric()) if name in last]
        return {name: last[name] for name in [*first, *(name for name in last if name not in first)]}

    def _require_finite(self, value: float, where: str) -> None:
        if not math.isfinite(value):
            raise InputError(
                f"The loss is {value} in epoch {self.current_epoch}, {where}; lower lr or raise temperature, and check "
                f"that the graph's weights are finite."
            )


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means here; raises InputError for cuda without a GPU."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device is 'cuda', but torch finds no GPU; set it to 'auto' or 'cpu'.")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def _as_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as numbers, which history and checkpoints hold: a subclass may return one-element tensors."""
    return {name: float(value) for name, value in metrics.items()}

"""What ``AdversarialTrainer`` is for: rankings under perturbation, and fake users who push a song."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import made_up
from claims.shilling import attacked
from data.graph import LISTENS, message_graph, node_counts
from evaluation.evaluate import evaluate
from evaluation.intervals import Interval
from evaluation.ranking import rank
from evaluation.seeds import Run, across_seeds, difference
from evaluation.vector_scores import VectorScores
from models.base import Embeddings
from tasks.config import RunConfig, load_run_config
from trainers.adversarial import AdversarialConfig
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.objective import PairObjective, Step
from trainers.perturbation import gradient, moved
from trainers.randomness import stream
from trainers.sampling import train_pairs
from trainers.trust import distrust

K = 10
RECALL, NDCG = f"recall@{K}", f"ndcg@{K}"
LENGTHS = (0.1, 0.2, 0.3)
DECIDES = 0.2
"""The length of a perturbation by which the first claim is decided."""

SPARSE = {"num_users": 2000, "num_songs": 5000, "num_artists": 800, "num_events": 60_000}
"""A log in which a hundredth of the users can push a song into lists; in the preset ``small`` they cannot."""
QUICK = {"lr": 0.02, "num_eval_users": 500}
SPARSE_EPOCHS = 12

MODELS: Mapping[str, dict[str, Any]] = {"vectors alone": {"local": False}, "the default model": {}}
APR_ALONE: dict[str, Any] = {"max_distrusted": 0}
TRUST_ALONE: dict[str, Any] = {"adversarial_weight": 0}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Both threats, and what trust costs where there is none."""
    run = load_run_config("configs/synthetic.toml")
    sparse = load_run_config("configs/synthetic.toml", {"synthetic": SPARSE, "training": QUICK})
    graphs = {name: graph_of(config, folder / name) for name, config in (("small", run), ("sparse", sparse))}
    under_perturbation = [perturbation(run, graphs["small"], name, seeds, folder) for name in MODELS]
    under_attack = [row for name in MODELS for row in shilling(sparse, graphs["sparse"], name, seeds, folder)]
    return [*under_perturbation, *under_attack, quiet(seeds, folder)]


def graph_of(run: RunConfig, folder: Path) -> HeteroData:
    """The training graph of a made-up log."""
    return made_up(run.synthetic_config(), folder).split(run.split_config())


@dataclass(frozen=True)
class Trained:
    """A trainer after its training, and how long that took."""

    trainer: BaseTrainer
    graph: HeteroData
    seconds: float

    @classmethod
    def of(
        cls, run: RunConfig, graph: HeteroData, name: str, model: str, folder: Path, epochs: int, **training: Any
    ) -> Trained:
        model_config = {**run.model, **MODELS[model], **node_counts(graph)}
        config = {**run.training, **training, "eval_k": K, "resume": False, "device": "cpu"}
        trainer = create_trainer(name, model_config, config, folder / "training")
        trainer.tests_at_end = False
        started = time.perf_counter()
        trainer.train(graph, epochs)
        return cls(trainer, graph, time.perf_counter() - started)

    def measured(self, embeddings: Embeddings | None = None) -> dict[str, np.ndarray]:
        """Recall and NDCG of each user on the test listens, with the model's own vectors or with others."""
        vectors = embeddings or self.trainer.embeddings(self.graph)
        score = VectorScores(*vectors, self.trainer.local_scores(self.graph))
        per_user = evaluate(score, self.graph, "test", K).per_user
        return {name: per_user[name].numpy() for name in (RECALL, NDCG)}


# Perturbed vectors


def perturbation(run: RunConfig, graph: HeteroData, model: str, seeds: Sequence[int], folder: Path) -> Claim:
    """NDCG of lists by vectors that were moved, as adversarial ranking keeps it and as ``advanced`` does."""
    runs: dict[str, list[Run]] = {"advanced": [], "adversarial": []}
    seconds = dict.fromkeys(runs, 0.0)
    for seed in seeds:
        for name, found in runs.items():
            further = APR_ALONE if name == "adversarial" else {}
            trained = Trained.of(run, graph, name, model, folder, run.num_epochs, seed=seed, **further)
            found.append(robustness(trained))
            seconds[name] += trained.seconds
    gaps = difference(runs["adversarial"], runs["advanced"], seed=0)
    levels = {name: across_seeds(found, seed=0) for name, found in runs.items()}
    columns = [NDCG, *(f"{kind} {length}" for kind in ("uphill", "noise") for length in LENGTHS)]
    told = "; ".join(
        f"{column} {levels['advanced'][column].mean:.4f} → {levels['adversarial'][column].mean:.4f} "
        f"({interval_text(gaps[column])})"
        for column in columns
    )
    return Claim(
        "adversarial",
        f"NDCG@{K} under perturbed vectors ({model}): greater than that of `advanced` where vectors are moved by "
        f"{DECIDES} up the gradient of the training loss, at no loss of recall",
        f"{told}; recall {interval_text(gaps[RECALL])}",
        gaps[f"uphill {DECIDES}"].low > 0 and gaps[RECALL].high >= 0,
        seconds["adversarial"] / seconds["advanced"],
    )


def robustness(trained: Trained) -> dict[str, np.ndarray]:
    """Recall and NDCG as they are, and the NDCG of each user under each perturbation."""
    trainer, graph = trained.trainer, trained.graph
    vectors, on_sphere = trainer.embeddings(graph), trainer.model.config.similarity == "cosine"
    directions = {"uphill": uphill(trainer, vectors), "noise": noise(vectors, trainer.config.seed)}
    columns = trained.measured()
    for kind, direction in directions.items():
        for length in LENGTHS:
            changed = moved(vectors, direction, length, on_sphere)
            assert isinstance(changed, Embeddings)
            columns[f"{kind} {length}"] = trained.measured(changed)[NDCG]
    return columns


def uphill(trainer: BaseTrainer, vectors: Embeddings) -> Embeddings:
    """Gradient of the ranking loss of all train pairs against all songs."""
    leaves = Embeddings(*(rows.clone().requires_grad_() for rows in vectors))
    step = Step(train_pairs(trainer.seen), torch.arange(len(vectors.song)), None)
    loss = PairObjective(trainer.config).ranking_loss(trainer.model, trainer.seen, leaves, step)
    return gradient(loss, leaves)


def noise(vectors: Embeddings, seed: int) -> Embeddings:
    """Any direction for each vector."""
    generator = stream(seed, "noise")
    return Embeddings(*(torch.randn(rows.shape, generator=generator) for rows in vectors))


# Poisoned data


ATTACKED: Mapping[str, tuple[str, ...]] = {
    "vectors alone": ("bandwagon", "popular", "segment"),
    "the default model": ("bandwagon",),
}


def shilling(run: RunConfig, graph: HeteroData, model: str, seeds: Sequence[int], folder: Path) -> list[Claim]:
    """How many honest users have the pushed song in their list, and what keeping it out costs; a row an attack."""
    peace, attacks = Side(), {name: (Side(), Side(), Caught()) for name in ATTACKED[model]}
    for seed in seeds:
        song = attacked(graph, ATTACKED[model][0], seed)[1]  # one a seed, whatever the attack
        peace.add(Trained.of(run, graph, "advanced", model, folder, SPARSE_EPOCHS, seed=seed), song, graph)
        for name, (advanced, adversarial, caught) in attacks.items():
            poisoned = attacked(graph, name, seed)[0]
            plain = Trained.of(run, poisoned, "advanced", model, folder, SPARSE_EPOCHS, seed=seed)
            wary = Trained.of(run, poisoned, "adversarial", model, folder, SPARSE_EPOCHS, seed=seed, **TRUST_ALONE)
            advanced.add(plain, song, graph)
            adversarial.add(wary, song, graph)
            caught.add(wary, int(graph["user"].num_nodes))
    return [shilling_claim(f"{name}, {model}", peace, *sides) for name, sides in attacks.items()]


class Side:
    """What one trainer came to, seed by seed."""

    def __init__(self) -> None:
        self.shown: list[Run] = []
        self.found: list[Run] = []
        self.seconds = 0.0

    def add(self, trained: Trained, song: int, honest: HeteroData) -> None:
        self.shown.append({"exposure": exposure(trained, song, int(honest["user"].num_nodes))})
        self.found.append(trained.measured())
        self.seconds += trained.seconds

    @property
    def exposed(self) -> float:
        """Share of the honest users who are shown the song, over all seeds."""
        return across_seeds(self.shown, seed=0)["exposure"].mean


def shilling_claim(what: str, peace: Side, advanced: Side, adversarial: Side, caught: Caught) -> Claim:
    """The row of one attack."""
    gap = difference(adversarial.shown, advanced.shown, seed=0)["exposure"]
    recall = difference(adversarial.found, advanced.found, seed=0)[RECALL]
    return Claim(
        "adversarial",
        f"1 % fake users push a song ({what}): fewer honest users have it in their top {K} than with `advanced`, at no "
        "loss of recall",
        f"{peace.exposed:.2%} without the attack, {advanced.exposed:.2%} with it, {adversarial.exposed:.2%} with "
        f"`adversarial` ({interval_text(gap)}); {caught.said()}; recall {interval_text(recall)}",
        gap.high < 0 and recall.high >= 0,
        adversarial.seconds / advanced.seconds,
    )


def exposure(trained: Trained, song: int, honest: int) -> np.ndarray:
    """(U,) 1 for each honest user whose list holds the song."""
    store = trained.graph[LISTENS]
    hidden = store.edge_index[:, store.train_mask]
    items = rank(trained.trainer.score(trained.graph), torch.arange(honest), hidden, K).items
    return (items == song).any(1).double().numpy()


class Caught:
    """Fake and honest users whom a trainer distrusted, over all seeds."""

    def __init__(self) -> None:
        self.fake = self.fakes = self.honest = self.honests = 0

    def add(self, trained: Trained, honest: int) -> None:
        users: Tensor = trained.trainer.distrust.users
        self.fake += int((users >= honest).sum())
        self.honest += int((users < honest).sum())
        self.fakes += int(trained.graph["user"].num_nodes) - honest
        self.honests += honest

    def said(self) -> str:
        return f"{self.fake} of {self.fakes} fake and {self.honest} of {self.honests:,} honest users distrusted"


def quiet(worlds: Sequence[int], folder: Path) -> Claim:
    """Users whom trust costs in logs without an attack: another world of both sizes for each seed."""
    keys, counts = AdversarialConfig(), np.zeros(2, dtype=np.int64)
    for world in worlds:
        for name, size in (("small", {}), ("sparse", SPARSE)):
            run = load_run_config("configs/synthetic.toml", {"synthetic": {**size, "seed": world + 1}})
            seen = message_graph(graph_of(run, folder / f"{name}-{world + 1}"))
            suspects = distrust(seen, keys.max_distrusted, keys.suspicion)
            counts += len(suspects.users), int(seen["user"].num_nodes)
    return Claim(
        "adversarial",
        "no attack: at most one honest user in a thousand is distrusted",
        f"{counts[0]} of {counts[1]:,} users in {2 * len(worlds)} worlds",
        bool(counts[0] * 1000 <= counts[1]),
        1.0,
    )


def interval_text(gap: Interval) -> str:
    """A difference with its interval."""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"

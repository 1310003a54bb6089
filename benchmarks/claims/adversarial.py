"""What ``AdversarialTrainer`` is for: rankings under perturbation, and fake users who push a song."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import CHECKOUT
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import made_up
from claims.shilling import attacked
from data.graph import LISTENS, message_graph, node_counts
from evaluation.evaluation import evaluate
from evaluation.ranking import rank
from evaluation.seed_comparison import Run, across_seeds, difference
from evaluation.statistics.intervals import Interval
from evaluation.vector_scores import VectorScores
from models.base import Embeddings
from tasks.run_config import RunConfig, load_run_config
from trainers.adversarial.adversarial_config import AdversarialConfig
from trainers.adversarial.fake_users import find_fake_users
from trainers.adversarial.perturbation import gradient, moved, root_mean_square, with_unit_rows
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.loop.random_streams import stream
from trainers.objective import PairObjective, Step
from trainers.sampling import KnownPairs, train_pairs

K = 10
RECALL, NDCG = f"recall@{K}", f"ndcg@{K}"
LENGTHS = (0.1, 0.2, 0.3)
"""Of perturbations, in units of the vectors' own length, both in the root mean square. Under cosine similarity that is
1; vectors that are ten times as long rank the same, and must not seem ten times as robust."""
DECIDES = 0.2
"""The length of a perturbation by which the first claims are decided."""
PUBLISHED = 0.5
"""How far He et al. move each vector, however long it is."""

SPARSE = {"num_users": 2000, "num_songs": 5000, "num_artists": 800, "num_events": 60_000}
"""A log in which a hundredth of the users can push a song into lists; in the preset ``small`` they cannot."""
QUICK = {"lr": 0.02, "num_eval_users": 500}
SPARSE_EPOCHS = 12

USUAL, PUBLISHED_MODEL = (CHECKOUT / "configs" / name for name in ("synthetic.toml", "synthetic-apr.toml"))
MODELS: Mapping[str, dict[str, Any]] = {"vectors alone": {"local": False}, "the default model": {}}
BEST_L2 = 0.1
"""Of `mf` with BPR and no adversarial loss: the best validation NDCG of six from 0.00001 to 0.15, two seeds."""


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Both threats, and what trust costs where there is none."""
    sparse = load_run_config(USUAL, {"synthetic": SPARSE, "training": QUICK})
    logs = {"small": load_run_config(USUAL), "sparse": sparse}
    graphs = {name: graph_of(run, folder / name) for name, run in logs.items()}
    under_perturbation = [perturbation(rivals, graphs["small"], seeds, folder) for rivals in all_rivals()]
    under_attack = [row for name in MODELS for row in shilling(sparse, graphs["sparse"], name, seeds, folder)]
    return [*under_perturbation, *under_attack, quiet(seeds, folder)]


def graph_of(run: RunConfig, folder: Path) -> HeteroData:
    """The training graph of a made-up log."""
    return made_up(run.synthetic, folder).split(run.split)


@dataclass(frozen=True)
class Trained:
    """A trainer after its training, and how long that took."""

    trainer: BaseTrainer
    graph: HeteroData
    seconds: float

    @classmethod
    def of(cls, run: RunConfig, graph: HeteroData, name: str, folder: Path, **training: Any) -> Trained:
        config = {**run.training, **training, "eval_k": K, "resume": False, "device": "cpu"}
        trainer = create_trainer(name, {**run.model, **node_counts(graph)}, config, folder / "training")
        trainer.tests_at_end = False
        started = time.perf_counter()
        trainer.train(graph, run.num_epochs)
        return cls(trainer, graph, time.perf_counter() - started)

    def measured(self, embeddings: Embeddings | None = None) -> dict[str, np.ndarray]:
        """Recall and NDCG of each user on the test listens, with the model's own vectors or with others."""
        vectors = embeddings or self.trainer.embeddings(self.graph)
        score = VectorScores(*vectors, self.trainer.local_scores(self.graph))
        per_user = evaluate(score, self.graph, "test", K).per_user
        return {name: per_user[name].numpy() for name in (RECALL, NDCG)}


# Perturbed vectors


@dataclass(frozen=True)
class Rivals:
    """One model trained by both trainers, and the keys of ``training_config`` that only one of them has."""

    what: str
    run: RunConfig
    advanced: Mapping[str, Any]
    adversarial: Mapping[str, Any]


def all_rivals() -> list[Rivals]:
    """The model of He et al., against itself as it is and with L2 instead; and the default model."""
    published = load_run_config(PUBLISHED_MODEL)
    own = {key: published.training.pop(key) for key in ("adversarial_weight", "adversarial_start", "epsilon")}
    at_once = {"adversarial_weight": 0.5, "adversarial_start": 0}
    return [
        Rivals("`mf` with BPR", published, {}, own),
        Rivals(f"`mf` with BPR, `advanced` with the best `l2`, {BEST_L2}", published, {"l2": BEST_L2}, own),
        Rivals("the default model", load_run_config(USUAL), {}, at_once),
    ]


def perturbation(rivals: Rivals, graph: HeteroData, seeds: Sequence[int], folder: Path) -> Claim:
    """NDCG of lists by vectors that were moved, as adversarial ranking keeps it and as ``advanced`` does."""
    keys = {"advanced": rivals.advanced, "adversarial": {**rivals.adversarial, "max_distrusted": 0}}
    runs: dict[str, list[Run]] = {name: [] for name in keys}
    seconds = dict.fromkeys(keys, 0.0)
    for seed in seeds:
        for name, own in keys.items():
            trained = Trained.of(rivals.run, graph, name, folder, seed=seed, **own)
            runs[name].append(robustness(trained))
            seconds[name] += trained.seconds
    gaps = difference(runs["adversarial"], runs["advanced"], seed=0)
    return Claim(
        "adversarial",
        f"NDCG@{K} under perturbed vectors ({rivals.what}): greater than that of `advanced` where vectors are moved by "
        f"{DECIDES} of their length up the gradient of the training loss, at no loss of recall",
        f"{table_text(runs, gaps)}; recall {interval_text(gaps[RECALL])}",
        gaps[f"uphill {DECIDES}"].low > 0 and gaps[RECALL].high >= 0,
        seconds["adversarial"] / seconds["advanced"],
    )


def table_text(runs: Mapping[str, Sequence[Run]], gaps: Mapping[str, Interval]) -> str:
    """Every NDCG of both trainers, with the difference."""
    before, after = (across_seeds(runs[name], seed=0) for name in ("advanced", "adversarial"))
    return "; ".join(
        f"{column} {before[column].mean:.4f} → {after[column].mean:.4f} ({interval_text(gap)})"
        for column, gap in gaps.items()
        if column != RECALL
    )


def robustness(trained: Trained) -> dict[str, np.ndarray]:
    """Recall and NDCG as they are, and the NDCG of each user under each perturbation."""
    trainer = trained.trainer
    vectors, on_sphere = trainer.embeddings(trained.graph), trainer.model.config.similarity == "cosine"
    columns = trained.measured()
    for name, (direction, length) in perturbations(trainer, vectors).items():
        changed = moved(vectors, direction, length, on_sphere)
        assert isinstance(changed, Embeddings)
        columns[name] = trained.measured(changed)[NDCG]
    return columns


def perturbations(trainer: BaseTrainer, vectors: Embeddings) -> dict[str, tuple[Embeddings, float]]:
    """Directions and lengths by the names of their columns."""
    directions = {"uphill": uphill(trainer, vectors), "noise": noise(vectors, trainer.config.seed)}
    own = root_mean_square(vectors).item()
    relative = {
        f"{kind} {length}": (direction, length * own) for kind, direction in directions.items() for length in LENGTHS
    }
    return {**relative, f"each uphill by {PUBLISHED}": (with_unit_rows(directions["uphill"]), PUBLISHED)}


def uphill(trainer: BaseTrainer, vectors: Embeddings) -> Embeddings:
    """Gradient of the ranking loss of all train pairs, against all songs or, with bpr, one song a pair."""
    leaves = Embeddings(*(rows.clone().requires_grad_() for rows in vectors))
    pairs, negatives = train_pairs(trainer.message_graph), torch.arange(len(vectors.song))
    if trainer.config.loss == "bpr":
        negatives = KnownPairs(pairs, len(vectors.song)).negatives(pairs[0], stream(trainer.config.seed, "uphill"))
    step = Step(pairs, negatives, None)
    return gradient(
        PairObjective(trainer.config).ranking_loss(trainer.model, trainer.message_graph, leaves, step), leaves
    )


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
    run = run.model_copy(update={"model": {**run.model, **MODELS[model]}, "num_epochs": SPARSE_EPOCHS})
    peace, attacks = Side(), {name: (Side(), Side(), Caught()) for name in ATTACKED[model]}
    for seed in seeds:
        song = attacked(graph, ATTACKED[model][0], seed)[1]  # one a seed, whatever the attack
        peace.add(Trained.of(run, graph, "advanced", folder, seed=seed), song, graph)
        for name, (advanced, adversarial, caught) in attacks.items():
            poisoned = attacked(graph, name, seed)[0]
            plain = Trained.of(run, poisoned, "advanced", folder, seed=seed)
            wary = Trained.of(run, poisoned, "adversarial", folder, seed=seed)
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
        users: Tensor = trained.trainer.fake_users.users
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
            suspects = find_fake_users(seen, keys.max_distrusted, keys.suspicion)
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

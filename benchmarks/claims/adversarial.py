"""AdversarialTrainer: measure rankings under perturbed vectors, and with fake users who push a song."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import CHECKOUT
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim, format_gap
from claims.shilling import attack_graph
from claims.synthetic_log import synthetic_graph
from claims.training import TrainedModel, create, train
from data.graph import LISTENS, message_graph
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
from trainers.loop.random_streams import stream
from trainers.objective import PairObjective, Step
from trainers.sampling import KnownPairs, train_pairs

K = 10
RECALL, NDCG = f"recall@{K}", f"ndcg@{K}"
LENGTHS = (0.1, 0.2, 0.3)
"""Lengths of perturbations relative to the length of the vectors, both as root mean square. So vectors that are ten
times as long, which rank the same, do not seem ten times as robust. With cosine similarity a vector has length 1."""
DECISIVE_LENGTH = 0.2
"""The length of the perturbation that decides the first claims."""
PUBLISHED = 0.5
"""The absolute length by which He et al. move each vector."""

SPARSE = {"num_users": 2000, "num_songs": 5000, "num_artists": 800, "num_events": 60_000}
"""A log in which 1 % fake users can push a song into lists; in the preset ``small`` they cannot."""
QUICK = {"lr": 0.02, "num_eval_users": 500}
SPARSE_EPOCHS = 12

USUAL, PUBLISHED_MODEL = (CHECKOUT / "configs" / name for name in ("synthetic.toml", "synthetic-apr.toml"))
MODELS: Mapping[str, dict[str, Any]] = {"vectors alone": {"local": False}, "the default model": {}}
BEST_L2 = 0.1
"""Best `l2` for `mf` with BPR without adversarial loss: best validation NDCG of six from 0.00001 to 0.15, two seeds."""


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return rows for perturbed vectors, for attacks by fake users, and for honest users who are distrusted."""
    sparse = load_run_config(USUAL, {"synthetic": SPARSE, "training": QUICK})
    small_graph = training_graph(load_run_config(USUAL), folder / "small")
    sparse_graph = training_graph(sparse, folder / "sparse")
    perturbed = [perturbation_claim(pair, small_graph, seeds, folder) for pair in model_pairs()]
    attacked = [row for name in MODELS for row in shilling_claims(sparse, sparse_graph, name, seeds, folder)]
    return [*perturbed, *attacked, false_alarm_claim(seeds, folder)]


def training_graph(run: RunConfig, folder: Path) -> HeteroData:
    """Make the training graph of a synthetic log."""
    return synthetic_graph(run.synthetic, folder).split(run.split)


def trained(name: str, run: RunConfig, graph: HeteroData, folder: Path, **training: Any) -> TrainedModel:
    """Train on the CPU."""
    trainer = create(name, run, graph, folder / "training", **training, eval_k=K, device="cpu")
    return train(trainer, graph, run.num_epochs)


def measure(model: TrainedModel, embeddings: Embeddings | None = None) -> dict[str, np.ndarray]:
    """Measure recall and NDCG of each user on the test listens, with the model's own vectors or with others."""
    vectors = embeddings or model.trainer.embeddings(model.graph)
    score = VectorScores(*vectors, model.trainer.local_scores(model.graph))
    per_user = evaluate(score, model.graph, "test", K).per_user
    return {name: per_user[name].numpy() for name in (RECALL, NDCG)}


# Perturbed vectors


@dataclass(frozen=True)
class ModelPair:
    """A run to train by both trainers, and the training keys of each."""

    what: str
    run: RunConfig
    advanced: Mapping[str, Any]
    adversarial: Mapping[str, Any]


def model_pairs() -> list[ModelPair]:
    """Return the model of He et al., compared with no regularisation and with L2; and the default model."""
    published = load_run_config(PUBLISHED_MODEL)
    own = {key: published.training.pop(key) for key in ("adversarial_weight", "adversarial_start", "epsilon")}
    from_start = {"adversarial_weight": 0.5, "adversarial_start": 0}
    return [
        ModelPair("`mf` with BPR", published, {}, own),
        ModelPair(f"`mf` with BPR, `advanced` with the best `l2`, {BEST_L2}", published, {"l2": BEST_L2}, own),
        ModelPair("the default model", load_run_config(USUAL), {}, from_start),
    ]


def perturbation_claim(pair: ModelPair, graph: HeteroData, seeds: Sequence[int], folder: Path) -> Claim:
    """Compare the NDCG under perturbed vectors after adversarial training and after ``advanced``."""
    keys = {"advanced": pair.advanced, "adversarial": {**pair.adversarial, "max_distrusted": 0}}
    runs: dict[str, list[Run]] = {name: [] for name in keys}
    seconds = dict.fromkeys(keys, 0.0)
    for seed in seeds:
        for name, own in keys.items():
            model = trained(name, pair.run, graph, folder, seed=seed, **own)
            runs[name].append(robustness(model))
            seconds[name] += model.seconds
    gaps = difference(runs["adversarial"], runs["advanced"], seed=0)
    return Claim(
        "adversarial",
        f"NDCG@{K} under perturbed vectors ({pair.what}): greater than that of `advanced` where vectors are moved by "
        f"{DECISIVE_LENGTH} of their length up the gradient of the training loss, at no loss of recall",
        f"{format_columns(runs, gaps)}; recall {format_gap(gaps[RECALL])}",
        gaps[f"uphill {DECISIVE_LENGTH}"].low > 0 and gaps[RECALL].high >= 0,
        seconds["adversarial"] / seconds["advanced"],
    )


def format_columns(runs: Mapping[str, Sequence[Run]], gaps: Mapping[str, Interval]) -> str:
    """Format every NDCG of both trainers, with the difference."""
    before, after = (across_seeds(runs[name], seed=0) for name in ("advanced", "adversarial"))
    return "; ".join(
        f"{column} {before[column].mean:.4f} → {after[column].mean:.4f} ({format_gap(gap)})"
        for column, gap in gaps.items()
        if column != RECALL
    )


def robustness(model: TrainedModel) -> dict[str, np.ndarray]:
    """Measure recall and NDCG of each user, and the NDCG under each perturbation."""
    trainer = model.trainer
    vectors, on_sphere = trainer.embeddings(model.graph), trainer.model.config.similarity == "cosine"
    columns = measure(model)
    for name, (direction, length) in perturbations(trainer, vectors).items():
        changed = moved(vectors, direction, length, on_sphere)
        assert isinstance(changed, Embeddings)
        columns[name] = measure(model, changed)[NDCG]
    return columns


def perturbations(trainer: BaseTrainer, vectors: Embeddings) -> dict[str, tuple[Embeddings, float]]:
    """Return directions and lengths, by the names of their columns."""
    directions = {"uphill": uphill(trainer, vectors), "noise": noise(vectors, trainer.config.seed)}
    own = root_mean_square(vectors).item()
    relative = {
        f"{kind} {length}": (direction, length * own) for kind, direction in directions.items() for length in LENGTHS
    }
    return {**relative, f"each uphill by {PUBLISHED}": (with_unit_rows(directions["uphill"]), PUBLISHED)}


def uphill(trainer: BaseTrainer, vectors: Embeddings) -> Embeddings:
    """Compute the gradient of the ranking loss of all train pairs, with all songs or, for bpr, one song per pair."""
    leaves = Embeddings(*(rows.clone().requires_grad_() for rows in vectors))
    pairs, negatives = train_pairs(trainer.message_graph), torch.arange(len(vectors.song))
    if trainer.config.loss == "bpr":
        negatives = KnownPairs(pairs, len(vectors.song)).negatives(pairs[0], stream(trainer.config.seed, "uphill"))
    step = Step(pairs, negatives, None)
    return gradient(
        PairObjective(trainer.config).ranking_loss(trainer.model, trainer.message_graph, leaves, step), leaves
    )


def noise(vectors: Embeddings, seed: int) -> Embeddings:
    """Draw a random direction for each vector."""
    generator = stream(seed, "noise")
    return Embeddings(*(torch.randn(rows.shape, generator=generator) for rows in vectors))


# Fake users


ATTACKED: Mapping[str, tuple[str, ...]] = {
    "vectors alone": ("bandwagon", "popular", "segment"),
    "the default model": ("bandwagon",),
}


def shilling_claims(run: RunConfig, graph: HeteroData, model: str, seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return a row for each attack: how many honest users are shown the pushed song, and the loss of recall."""
    run = run.model_copy(update={"model": {**run.model, **MODELS[model]}, "num_epochs": SPARSE_EPOCHS})
    honest = int(graph["user"].num_nodes)
    no_attack = Exposure()
    attacks = {name: (Exposure(), Exposure(), Detection()) for name in ATTACKED[model]}
    for seed in seeds:
        song = attack_graph(graph, ATTACKED[model][0], seed)[1]  # it depends on the seed only
        no_attack.add(trained("advanced", run, graph, folder, seed=seed), song, honest)
        for name, (advanced, adversarial, detection) in attacks.items():
            poisoned = attack_graph(graph, name, seed)[0]
            plain = trained("advanced", run, poisoned, folder, seed=seed)
            robust = trained("adversarial", run, poisoned, folder, seed=seed)
            advanced.add(plain, song, honest)
            adversarial.add(robust, song, honest)
            detection.add(robust, honest)
    return [shilling_claim(f"{name}, {model}", no_attack, *results) for name, results in attacks.items()]


class Exposure:
    """How often one trainer shows the pushed song, and its metrics, by seed."""

    def __init__(self) -> None:
        self.shown: list[Run] = []
        self.metrics: list[Run] = []
        self.seconds = 0.0

    def add(self, model: TrainedModel, song: int, honest: int) -> None:
        """Add the model of a seed; ``honest`` is the number of honest users, who come first."""
        store = model.graph[LISTENS]
        hidden = store.edge_index[:, store.train_mask]
        items = rank(model.trainer.score(model.graph), torch.arange(honest), hidden, K).items
        self.shown.append({"exposure": (items == song).any(1).double().numpy()})
        self.metrics.append(measure(model))
        self.seconds += model.seconds

    @property
    def share(self) -> float:
        """Share of the honest users who are shown the song, over all seeds."""
        return across_seeds(self.shown, seed=0)["exposure"].mean


class Detection:
    """Counts of fake and honest users whom a trainer distrusted, over all seeds."""

    def __init__(self) -> None:
        self.fake = self.all_fake = self.honest = self.all_honest = 0

    def add(self, model: TrainedModel, honest: int) -> None:
        users: Tensor = model.trainer.distrust.users
        self.fake += int((users >= honest).sum())
        self.honest += int((users < honest).sum())
        self.all_fake += int(model.graph["user"].num_nodes) - honest
        self.all_honest += honest

    def __str__(self) -> str:
        return f"{self.fake} of {self.all_fake} fake and {self.honest} of {self.all_honest:,} honest users distrusted"


def shilling_claim(
    what: str, no_attack: Exposure, advanced: Exposure, adversarial: Exposure, detection: Detection
) -> Claim:
    """Return the row of one attack."""
    gap = difference(adversarial.shown, advanced.shown, seed=0)["exposure"]
    recall = difference(adversarial.metrics, advanced.metrics, seed=0)[RECALL]
    return Claim(
        "adversarial",
        f"1 % fake users push a song ({what}): fewer honest users have it in their top {K} than with `advanced`, at no "
        "loss of recall",
        f"{no_attack.share:.2%} without the attack, {advanced.share:.2%} with it, {adversarial.share:.2%} with "
        f"`adversarial` ({format_gap(gap)}); {detection}; recall {format_gap(recall)}",
        gap.high < 0 and recall.high >= 0,
        adversarial.seconds / advanced.seconds,
    )


def false_alarm_claim(worlds: Sequence[int], folder: Path) -> Claim:
    """Count honest users who are distrusted in logs without an attack: two logs of different sizes per seed."""
    keys, counts = AdversarialConfig(), np.zeros(2, dtype=np.int64)
    for world in worlds:
        for name, size in (("small", {}), ("sparse", SPARSE)):
            run = load_run_config("configs/synthetic.toml", {"synthetic": {**size, "seed": world + 1}})
            seen = message_graph(training_graph(run, folder / f"{name}-{world + 1}"))
            suspects = find_fake_users(seen, keys.max_distrusted, keys.suspicion)
            counts += len(suspects.users), int(seen["user"].num_nodes)
    return Claim(
        "adversarial",
        "no attack: at most one honest user in a thousand is distrusted",
        f"{counts[0]} of {counts[1]:,} users in {2 * len(worlds)} worlds",
        bool(counts[0] * 1000 <= counts[1]),
        1.0,
    )

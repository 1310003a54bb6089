"""What a federated training reaches, round by round, with clients that drop out, and for how much privacy.

Two made-up logs. The small preset, in 20 clients of 50 users, says what not gathering the listens costs. Privacy needs
many users to a song: 2,000 users and 200 songs, in 5 clients of 400 users. All choices were made on validation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import made_up, usual_run
from claims.update_leak import leak
from data.graph import LISTENS, message_graph, node_counts
from data.synthetic.log import SyntheticConfig
from evaluation.evaluation import Evaluation, evaluate
from evaluation.seed_comparison import AcrossSeeds, across_seeds, difference
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.federated.client import CATALOGUE, Client, client_graph, groups_of_users, split_parameters
from trainers.federated.federated_config import FederatedConfig

K = 10
METRIC = f"recall@{K}"

ROUNDS, SHOWN = 30, (5, 10, 20, 30)
FEDERATED = {"batch_size": 256, "lr": 0.02, "patience": ROUNDS, "use_scheduler": False}
OFFLINE = 0.3

MANY_USERS = SyntheticConfig(preset="small", num_users=2000, num_songs=200, num_artists=40, num_events=100_000)
PRIVATE_ROUNDS = 12
NOISE = (0.5, 1.0, 2.0)
CLIPPED = {"clipping_norm": 0.05, "local_optimizer": "sgd", "lr": 0.1}
PRIVATE = {**CLIPPED, "num_clients": 5, "server_lr": 600.0, "user_rate": 0.5, "patience": PRIVATE_ROUNDS}
EPSILON = 5.0
"""The greatest epsilon, against the server itself, that the bar counts as privacy."""

KEPT, UNTOUCHED, GUESS = 0.95, 0.95, 0.55
"""Bars: recall kept of ``advanced``; of all clients' recall when some are offline; greatest area that is a guess."""


class Trained(NamedTuple):
    """One training: the test metrics of all users, and how long it took."""

    trainer: BaseTrainer
    test: Evaluation
    seconds: float

    @property
    def curve(self) -> list[float]:
        """Validation recall after each epoch."""
        return [record[METRIC] for record in self.trainer.history]


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Four rows: rounds, clients dropping out, epsilon, and what an update gives away."""
    run = usual_run()
    training = {**run.training, "num_eval_users": None}
    model = {**run.model, "architecture": "mf"}
    graph = made_up(run.synthetic, folder / "small").split(run.split)
    make = Maker(graph, model, training, folder / "trainings")
    central = [make("advanced", seed, 40) for seed in seeds]
    together = [make("federated", seed, ROUNDS, FEDERATED) for seed in seeds]
    apart = [make("federated", seed, ROUNDS, {**FEDERATED, "offline_rate": OFFLINE}) for seed in seeds]
    leaks = leaked(graph, make.model, training, together)
    rows = [rounds_row(central, together), offline_row(together, apart, central), leak_row(leaks, together, central)]
    many = made_up(MANY_USERS, folder / "many").split(run.split)
    return [*rows, privacy_row(Maker(many, {**model, "embedding_dim": 8}, training, folder / "private"), seeds)]


# Rows


def rounds_row(central: list[Trained], federated: list[Trained]) -> Claim:
    """Recall of users whose listens nobody gathers, against recall on gathered ones."""
    gap, kept = apart_by(federated, central), ratio(federated, central)
    curve = np.mean([trained.curve for trained in federated], axis=0)
    shown = ", ".join(f"{number}: {curve[number - 1]:.3f}" for number in SHOWN)
    measured = (
        f"{METRIC} {interval(federated)}, {kept:.1%} of `advanced`'s {interval(central)}, difference {gap}; "
        f"on validation after rounds {shown}"
    )
    what = f"recall of `advanced` while listens and user vectors stay in 20 groups of users (at least {KEPT:.0%})"
    return Claim("federated", what, measured, kept >= KEPT, cost(federated, central))


def offline_row(together: list[Trained], apart: list[Trained], central: list[Trained]) -> Claim:
    """The same with clients that drop out."""
    kept, gap = ratio(apart, together), apart_by(apart, together)
    measured = f"{METRIC} {interval(apart)}, {kept:.1%} of all clients', difference {gap}"
    what = f"{OFFLINE:.0%} of the clients drop out of each round (at least {UNTOUCHED:.0%} of the recall with all)"
    return Claim("federated", what, measured, kept >= UNTOUCHED, cost(apart, central))


def leak_row(leaks: Mapping[str, list[float]], federated: list[Trained], central: list[Trained]) -> Claim:
    """What an update of song rows gives away, with and without noise."""
    means = {name: float(np.mean(areas)) for name, areas in leaks.items()}
    listed = ", ".join(f"{name} {area:.3f}" for name, area in means.items())
    what = f"a client's update does not tell which songs its users heard (ROC area at most {GUESS} with noise 1)"
    reached = means["noise 1"] <= GUESS
    return Claim("federated", what, f"area by the best of four looks: {listed}", reached, cost(federated, central))


def privacy_row(make: Maker, seeds: Sequence[int]) -> Claim:
    """Recall for epsilon, against no privacy and against no model at all."""
    central = [make("advanced", seed, 40) for seed in seeds]
    open_ones = [make("federated", seed, PRIVATE_ROUNDS, {**PRIVATE, "noise_multiplier": 0.0}) for seed in seeds]
    private = {
        noise: [make("federated", seed, PRIVATE_ROUNDS, {**PRIVATE, "noise_multiplier": noise}) for seed in seeds]
        for noise in NOISE
    }
    popular = popularity(make.graph)
    listed = "; ".join(f"{epsilons(runs[0])}: {interval(runs)}" for runs in private.values())
    strict = [runs for runs in private.values() if runs[0].trainer.history[-1]["epsilon"] <= EPSILON]
    better = [difference([run(one.test) for one in runs], [run(popular)], 0)[METRIC] for runs in strict]
    measured = (
        f"{METRIC} {listed}; clipped without noise {interval(open_ones)}, `advanced` {interval(central)}, popularity "
        f"{popular.mean()[METRIC]:.4f}; delta 1e-5, each user drawn in {PRIVATE['user_rate']:.0%} of "
        f"{PRIVATE_ROUNDS} rounds"
    )
    what = f"still better than popularity at an epsilon of at most {EPSILON:g} a user, against the server itself"
    reached = bool(better) and all(gap.low > 0 for gap in better)
    return Claim("federated", what, measured, reached, cost(private[NOISE[0]], central))


# What is measured


class Maker:
    """Trains on one graph with the settings of one run, and measures on the test listens of all users."""

    def __init__(self, graph: HeteroData, model: Mapping[str, Any], training: Mapping[str, Any], folder: Path) -> None:
        self.graph, self.training, self.folder = graph, training, folder
        self.model = {**model, **node_counts(graph)}

    def __call__(self, name: str, seed: int, epochs: int, more: Mapping[str, Any] | None = None) -> Trained:
        given = {**self.training, "seed": seed, "resume": False, **(more or {})}
        trainer = create_trainer(name, self.model, given, self.folder)
        started = time.perf_counter()
        trainer.train(self.graph, epochs)
        seconds = time.perf_counter() - started
        return Trained(trainer, evaluate(trainer.score(self.graph), self.graph, "test", K), seconds)


def leaked(
    graph: HeteroData, model: Mapping[str, Any], training: Mapping[str, Any], trainings: list[Trained]
) -> dict[str, list[float]]:
    """ROC areas of each seed's first client in the round after its training, three ways to send an update."""
    noisy = {**CLIPPED, "noise_multiplier": 1.0}
    ways: dict[str, dict[str, Any]] = {"trained together": FEDERATED, "clipped": CLIPPED, "noise 1": noisy}
    return {name: [leak_of(graph, model, {**training, **way}, one) for one in trainings] for name, way in ways.items()}


def leak_of(graph: HeteroData, model: Mapping[str, Any], given: Mapping[str, Any], trained: Trained) -> float:
    """Return how well the next update of client 0 tells which songs it heard."""
    config = FederatedConfig.parse({**given, "seed": trained.trainer.config.seed}, "training_config")
    seen = message_graph(graph)
    group = groups_of_users(int(seen["user"].num_nodes), config.num_clients, config.seed)[0]
    client, (users, shared) = (
        Client(0, model, config, client_graph(seen, group)),
        split_parameters(trained.trainer.model),
    )
    client.users, songs = users[group].clone(), int(seen["song"].num_nodes)
    sent = client.train(shared, config.lr, ROUNDS + 1).shared[CATALOGUE]
    heard = torch.zeros(songs, dtype=torch.bool)
    heard[client.graph[LISTENS].edge_index[1]] = True
    return leak((sent - shared[CATALOGUE])[:songs], heard)


def popularity(graph: HeteroData) -> Evaluation:
    """The most heard songs for everybody."""
    listeners = message_graph(graph)[LISTENS].edge_index[1].bincount(minlength=int(graph["song"].num_nodes)).float()
    return evaluate(lambda users: listeners.expand(len(users), -1), graph, "test", K)


# In words


def run(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """The per-user metric of one training."""
    return {METRIC: evaluation.per_user[METRIC].numpy()}


def crossed(trainings: list[Trained]) -> AcrossSeeds:
    """Mean and interval over users and seeds."""
    return across_seeds([run(trained.test) for trained in trainings], 0)[METRIC]


def interval(trainings: list[Trained]) -> str:
    found = crossed(trainings)
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def apart_by(ours: list[Trained], theirs: list[Trained]) -> str:
    gap = difference([run(one.test) for one in ours], [run(one.test) for one in theirs], 0)[METRIC]
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def ratio(ours: list[Trained], theirs: list[Trained]) -> float:
    return crossed(ours).mean / crossed(theirs).mean


def cost(ours: list[Trained], theirs: list[Trained]) -> float:
    return sum(one.seconds for one in ours) / sum(one.seconds for one in theirs)


def epsilons(trained: Trained) -> str:
    last = trained.trainer.history[-1]
    return f"epsilon {last['epsilon']:.1f} (of averages {last['epsilon_of_averages']:.1f})"

"""FederatedTrainer: its recall by round, with clients that drop out, and with privacy; and what an update gives away.

There are two synthetic logs. The small preset, with 20 clients of 50 users, shows the cost of not gathering the
listens. Privacy needs many users per song: 2,000 users and 200 songs, with 5 clients of 400 users. All settings were
chosen on validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from claims.claim import Claim, format_gap, format_value
from claims.synthetic_log import default_run, synthetic_graph
from claims.training import create, train
from claims.update_leak import leak
from data.graph import LISTENS, message_graph, node_counts
from data.synthetic.log import SyntheticConfig
from evaluation.baselines.popular import popularity
from evaluation.evaluation import evaluate
from evaluation.seed_comparison import AcrossSeeds, Run, across_seeds, difference
from evaluation.statistics.intervals import Interval
from tasks.run_config import RunConfig
from trainers.base import BaseTrainer
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
"""The largest epsilon, against the server itself, that counts as private."""

KEPT, KEPT_OFFLINE, GUESS = 0.95, 0.95, 0.55
"""Bars: share of ``advanced``'s recall; share of all clients' recall if some are offline; largest ROC area that is
still a guess."""


@dataclass(frozen=True)
class Measured:
    """One training: its trainer, its test recall by user, and its seconds."""

    trainer: BaseTrainer
    run: Run
    seconds: float


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return four rows: recall by round, clients that drop out, what an update gives away, and privacy."""
    run = with_tables(default_run(), {"architecture": "mf"}, {"num_eval_users": None})
    graph = synthetic_graph(run.synthetic, folder / "small").split(run.split)
    home = folder / "trainings"
    central = [measure("advanced", run, graph, home, 40, seed=seed) for seed in seeds]
    federated = [measure("federated", run, graph, home, ROUNDS, **FEDERATED, seed=seed) for seed in seeds]
    offline = [
        measure("federated", run, graph, home, ROUNDS, **FEDERATED, seed=seed, offline_rate=OFFLINE) for seed in seeds
    ]
    leaks = leaks_of_updates(run, graph, federated)
    rows = [rounds_row(central, federated), offline_row(federated, offline, central)]
    rows.append(leak_row(leaks, federated, central))
    many = synthetic_graph(MANY_USERS, folder / "many").split(run.split)
    return [*rows, privacy_row(with_tables(run, {"embedding_dim": 8}, {}), many, seeds, folder / "private")]


def with_tables(run: RunConfig, model: Mapping[str, Any], training: Mapping[str, Any]) -> RunConfig:
    """Return the run with other keys of the model and the training."""
    return run.model_copy(update={"model": {**run.model, **model}, "training": {**run.training, **training}})


# Rows


def rounds_row(central: list[Measured], federated: list[Measured]) -> Claim:
    """Compare the recall with that of a training on gathered listens."""
    gap, kept = format_gap(gap_of(federated, central)), ratio(federated, central)
    curves = [[record[METRIC] for record in one.trainer.history] for one in federated]
    curve = np.mean(curves, axis=0)
    shown = ", ".join(f"{number}: {curve[number - 1]:.3f}" for number in SHOWN)
    measured = (
        f"{METRIC} {format_value(recall(federated))}, {kept:.1%} of `advanced`'s {format_value(recall(central))}, "
        f"difference {gap}; on validation after rounds {shown}"
    )
    what = f"recall of `advanced` while listens and user vectors stay in 20 groups of users (at least {KEPT:.0%})"
    return Claim("federated", what, measured, kept >= KEPT, cost(federated, central))


def offline_row(federated: list[Measured], offline: list[Measured], central: list[Measured]) -> Claim:
    """Compare the recall if some clients drop out with that of all clients."""
    kept, gap = ratio(offline, federated), format_gap(gap_of(offline, federated))
    measured = f"{METRIC} {format_value(recall(offline))}, {kept:.1%} of all clients', difference {gap}"
    what = f"{OFFLINE:.0%} of the clients drop out of each round (at least {KEPT_OFFLINE:.0%} of the recall with all)"
    return Claim("federated", what, measured, kept >= KEPT_OFFLINE, cost(offline, central))


def leak_row(leaks: Mapping[str, list[float]], federated: list[Measured], central: list[Measured]) -> Claim:
    """Measure what an update of song rows gives away, with and without noise."""
    means = {name: float(np.mean(areas)) for name, areas in leaks.items()}
    listed = ", ".join(f"{name} {area:.3f}" for name, area in means.items())
    what = f"a client's update does not tell which songs its users heard (ROC area at most {GUESS} with noise 1)"
    reached = means["noise 1"] <= GUESS
    return Claim("federated", what, f"area by the best of four looks: {listed}", reached, cost(federated, central))


def privacy_row(run: RunConfig, graph: HeteroData, seeds: Sequence[int], folder: Path) -> Claim:
    """Measure the recall for each epsilon, and compare it with no privacy and with popularity."""
    central = [measure("advanced", run, graph, folder, 40, seed=seed) for seed in seeds]
    by_noise = {
        noise: [
            measure("federated", run, graph, folder, PRIVATE_ROUNDS, **PRIVATE, seed=seed, noise_multiplier=noise)
            for seed in seeds
        ]
        for noise in (0.0, *NOISE)
    }
    without_noise = by_noise.pop(0.0)
    popular = evaluate(popularity(graph), graph, "test", K)
    listed = "; ".join(f"{epsilons(of_seeds[0])}: {format_value(recall(of_seeds))}" for of_seeds in by_noise.values())
    private = [of_seeds for of_seeds in by_noise.values() if of_seeds[0].trainer.history[-1]["epsilon"] <= EPSILON]
    baseline = [{METRIC: popular.per_user[METRIC].numpy()}]
    gains = [difference([one.run for one in of_seeds], baseline, 0)[METRIC] for of_seeds in private]
    measured = (
        f"{METRIC} {listed}; clipped without noise {format_value(recall(without_noise))}, `advanced` "
        f"{format_value(recall(central))}, popularity {popular.mean()[METRIC]:.4f}; delta 1e-5, each user drawn in "
        f"{PRIVATE['user_rate']:.0%} of {PRIVATE_ROUNDS} rounds"
    )
    what = f"still better than popularity at an epsilon of at most {EPSILON:g} a user, against the server itself"
    reached = bool(gains) and all(gain.low > 0 for gain in gains)
    return Claim("federated", what, measured, reached, cost(by_noise[NOISE[0]], central))


# Measurements


def measure(name: str, run: RunConfig, graph: HeteroData, folder: Path, epochs: int, **training: Any) -> Measured:
    """Train, and measure the recall on the test listens of all users."""
    model = train(create(name, run, graph, folder, **training), graph, epochs)
    return Measured(model.trainer, {METRIC: model.per_user(METRIC, K)}, model.seconds)


def leaks_of_updates(run: RunConfig, graph: HeteroData, trainings: list[Measured]) -> dict[str, list[float]]:
    """Measure the ROC area of the first client's next update, for each training and for three kinds of updates."""
    noisy = {**CLIPPED, "noise_multiplier": 1.0}
    settings: dict[str, dict[str, Any]] = {"trained together": FEDERATED, "clipped": CLIPPED, "noise 1": noisy}
    return {
        name: [leak_of_update(with_tables(run, {}, keys), graph, one.trainer) for one in trainings]
        for name, keys in settings.items()
    }


def leak_of_update(run: RunConfig, graph: HeteroData, trainer: BaseTrainer) -> float:
    """Measure the ROC area of the next update of client 0."""
    config = FederatedConfig.parse({**run.training, "seed": trainer.config.seed}, "training_config")
    seen = message_graph(graph)
    group = groups_of_users(int(seen["user"].num_nodes), config.num_clients, config.seed)[0]
    model = {**run.model, **node_counts(graph)}
    client, (users, shared) = Client(0, model, config, client_graph(seen, group)), split_parameters(trainer.model)
    client.users, songs = users[group].clone(), int(seen["song"].num_nodes)
    sent = client.train(shared, config.lr, ROUNDS + 1).shared[CATALOGUE]
    heard = torch.zeros(songs, dtype=torch.bool)
    heard[client.graph[LISTENS].edge_index[1]] = True
    return leak((sent - shared[CATALOGUE])[:songs], heard)


def recall(trainings: list[Measured]) -> AcrossSeeds:
    """Return the recall with its interval over users and seeds."""
    return across_seeds([one.run for one in trainings], 0)[METRIC]


def gap_of(ours: list[Measured], theirs: list[Measured]) -> Interval:
    return difference([one.run for one in ours], [one.run for one in theirs], 0)[METRIC]


def ratio(ours: list[Measured], theirs: list[Measured]) -> float:
    return recall(ours).mean / recall(theirs).mean


def cost(ours: list[Measured], theirs: list[Measured]) -> float:
    return sum(one.seconds for one in ours) / sum(one.seconds for one in theirs)


def epsilons(training: Measured) -> str:
    last = training.trainer.history[-1]
    return f"epsilon {last['epsilon']:.1f} (of averages {last['epsilon_of_averages']:.1f})"

"""MetaTrainer: compare adapted vectors of new users with the mean of their few songs, on users held out entirely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.synthetic_log import default_run, synthetic_graph
from claims.training import create, train
from data.graph import BY, LISTENS, assemble_graph, message_graph
from data.listens import Listens
from data.split import SplitConfig, pair_uniform
from data.training_graph import split_graph
from data.weights import WeightConfig
from evaluation.metrics.accuracy import ranking_metrics
from evaluation.new_users import NewUsers
from evaluation.ranking import rank
from evaluation.seed_comparison import AcrossSeeds, across_seeds
from models.factory import create_model
from models.few_shot import KnownSongs, mean_of_songs
from tasks.run_config import RunConfig
from trainers.base import BaseTrainer

KNOWN = (1, 3, 5, 10)
K = 10
FOLDS, SALT = 5, 12345
"""A fifth of the users is held out, by the hash of their ids."""
MODELS: dict[str, dict[str, Any]] = {
    "gat": {"architecture": "gat"},
    "gat, local = false": {"architecture": "gat", "local": False},
    "lightgcn": {"architecture": "lightgcn"},
    "mf": {"architecture": "mf"},
}
TIMED = 50
"""Users whose adaptation is timed, one by one."""

Recalls = dict[tuple[str, int], np.ndarray]
"""Recall of each held-out user (N,), by the kind of vector and the number of known songs."""


class UserSplit(NamedTuple):
    """The training graph of four fifths of the users, and the songs of each of the others."""

    graph: HeteroData
    held_out: list[np.ndarray]


class Measured(NamedTuple):
    """The measurements of one seed of one model."""

    recalls: Recalls
    seconds: float
    advanced_seconds: float
    milliseconds: float
    """Median milliseconds to adapt one user."""
    share_of_ranking: float
    """That time divided by the time to rank all songs for the user."""


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return a row for each model; the default model scores by its local channel too."""
    run = default_run()
    split = split_users(folder, run)
    return [_claim(name, [_measure(split, run, name, seed, folder) for seed in seeds]) for name in MODELS]


def split_users(folder: Path, run: RunConfig, fold: int = 0, without: Sequence[int] = ()) -> UserSplit:
    """Make the synthetic log and hold out a fold of its users; folds in ``without`` are dropped entirely."""
    whole, listens = synthetic_graph(run.synthetic, folder)
    hashes = whole["user"].id_hash.numpy()
    fold_of = (pair_uniform(hashes, np.zeros_like(hashes), SALT) * FOLDS).astype(int)
    user, song = whole[LISTENS].edge_index.numpy()
    held_out = [song[user == one] for one in np.flatnonzero(fold_of == fold)]
    return UserSplit(_graph_of_users(whole, listens, ~np.isin(fold_of, [fold, *without])), held_out)


def _graph_of_users(whole: HeteroData, folder: Path, keep: np.ndarray) -> HeteroData:
    """Build and split the graph of some users: ``keep`` (U,) bool."""
    table = pq.read_table(folder / "listens.parquet")
    table = table.filter(pa.array(keep[table["user"].to_numpy()]))
    renumbered = pa.array((np.cumsum(keep) - 1)[table["user"].to_numpy()], pa.int32())
    table = table.set_column(table.column_names.index("user"), "user", renumbered)
    hashes = {kind: whole[kind].id_hash for kind in ("user", "song", "artist")}
    hashes["user"] = hashes["user"][torch.from_numpy(keep)]
    graph = assemble_graph(hashes, Listens.from_table(table), whole[BY].edge_index, WeightConfig())
    return split_graph(graph, SplitConfig(), table)


def _measure(split: UserSplit, run: RunConfig, name: str, seed: int, folder: Path) -> Measured:
    graph, run = split.graph, run.model_copy(update={"model": {**run.model, **MODELS[name]}})
    advanced, meta = (
        train(create(trainer, run, graph, folder / f"{trainer} {name} {seed}", seed=seed), graph, run.num_epochs)
        for trainer in ("advanced", "meta")
    )
    users = NewUsers.load(meta.trainer.save_model(folder / "model"))
    recalls: Recalls = {}
    for count in KNOWN:
        known, relevant = known_and_relevant(split.held_out, count, seed)
        vectors = {
            "adapted": users.vectors(known),
            "mean": mean_of_songs(known, users.songs, unit_length=True),
        }
        if advanced.trainer.model.num_hops:
            vectors["passed"] = passed_vectors(advanced.trainer, graph, known)
        recalls |= {(kind, count): recall(users, known, of_kind, relevant) for kind, of_kind in vectors.items()}
    return Measured(recalls, meta.seconds, advanced.seconds, *_time_adaptation(users, known))


def known_and_relevant(songs: Sequence[np.ndarray], count: int, seed: int) -> tuple[KnownSongs, Tensor]:
    """Draw ``count`` known songs of each user who has more; return them and the others as pairs (2, R) of row and song.

    With the same seed, the songs of a smaller count are among those of a larger count.
    """
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(own) for own in songs]
    drawn = [own for own in drawn if len(own) > count]
    known = torch.from_numpy(np.stack([own[:count] for own in drawn]))
    rows = np.repeat(np.arange(len(drawn)), [len(own) - count for own in drawn])
    relevant = np.stack([rows, np.concatenate([own[count:] for own in drawn])])
    return KnownSongs(known, torch.ones_like(known, dtype=torch.bool)), torch.from_numpy(relevant)


def recall(users: NewUsers, known: KnownSongs, vectors: Tensor, relevant: Tensor) -> np.ndarray:
    """Measure the recall at 10 of each user (N,), with all songs ranked except the known ones."""
    ranked = rank(users.score(known, vectors), torch.arange(len(vectors)), known.pairs, K)
    return ranking_metrics(ranked.items, relevant, K)["recall"].numpy()


@torch.no_grad()
def passed_vectors(trainer: BaseTrainer, graph: HeteroData, known: KnownSongs) -> Tensor:
    """Compute vectors of new users (N, D) by message passing: new nodes with a zero row and edges to their songs."""
    old, config = trainer.model.state_dict(), trainer.model.config
    first, added = config.num_users, len(known.songs)
    larger = create_model({**config.model_dump(), "num_users": first + added}, 0).eval()
    rows = old["table"].new_zeros(added, config.embedding_dim)
    larger.load_state_dict({**old, "table": torch.cat([old["table"][:first], rows, old["table"][first:]])})
    seen = message_graph(graph)
    pairs = known.pairs + torch.tensor([[first], [0]])
    seen["user"].num_nodes = first + added
    seen[LISTENS].edge_index = torch.cat([seen[LISTENS].edge_index, pairs], 1)
    seen[LISTENS].weight = torch.cat([seen[LISTENS].weight, torch.ones(pairs.shape[1])])
    return larger.encode(seen).user[first:]


def _time_adaptation(users: NewUsers, known: KnownSongs) -> tuple[float, float]:
    """Return the median milliseconds to adapt one user, divided by one and by the time to rank all songs."""
    one = [KnownSongs(known.songs[n : n + 1], known.given[n : n + 1]) for n in range(min(TIMED, len(known.songs)))]
    adapting, ranking = [], []
    for own in one:
        started = time.perf_counter()
        vectors = users.vectors(own)
        adapted = time.perf_counter()
        rank(users.score(own, vectors), torch.tensor([0]), own.pairs, K)
        adapting.append(adapted - started)
        ranking.append(time.perf_counter() - adapted)
    return 1000 * median(adapting), median(adapting) / median(ranking)


def _claim(name: str, runs: Sequence[Measured]) -> Claim:
    gaps = []
    for count in KNOWN:  # adapted minus mean of songs, paired by user and seed
        of_seeds = [{"gap": run.recalls["adapted", count] - run.recalls["mean", count]} for run in runs]
        gaps.append(across_seeds(of_seeds, seed=0)["gap"])
    speed = median(run.milliseconds for run in runs), median(run.share_of_ranking for run in runs)
    texts = [_format_recalls(runs, count, gap) for count, gap in zip(KNOWN, gaps, strict=True)]
    return Claim(
        trainer="meta",
        what=f"new users, `{name}`: recall@{K} of adapted vectors above that of the mean of their songs",
        measured=f"{'; '.join(texts)}; {speed[0]:.1f} ms a user, {speed[1]:.2f} of a ranking",
        reached=all(gap.low > 0 for gap in gaps),
        cost=sum(run.seconds for run in runs) / sum(run.advanced_seconds for run in runs),
    )


def _format_recalls(runs: Sequence[Measured], count: int, gap: AcrossSeeds) -> str:
    mean = {kind: np.mean([run.recalls[kind, n] for run in runs]) for kind, n in runs[0].recalls if n == count}
    passed = f" (message passing {mean['passed']:.3f})" if "passed" in mean else ""
    interval = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    return f"{count} known {mean['adapted']:.3f} against {mean['mean']:.3f}, {interval}{passed}"

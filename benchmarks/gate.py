"""A/A test of the gate: how often is it wrong about retrains that differ only by seed, and does it find a loss?

One configuration is trained many times on one made-up log. Each retrain is the challenger of the one before it, in a
ring, and the noise between seeds comes from five others. Then each challenger loses 5 % of its recall, by giving some
users the vector of another user, and the same decisions are made again. Bundles and decisions are real ones. Retrains
that the folder already has of the same code and settings are not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from machine import code, print_where
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from torch_geometric.data import HeteroData

from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.events.log_files import find_files
from data.graph import build_graph, load_graph, node_counts, save_graph
from data.profile import graph_profile
from data.split import SplitConfig
from data.synthetic.log import SyntheticConfig, write_log
from data.training_graph import split_graph
from evaluation.audit.auditor import audit_graph, read_listens
from evaluation.evaluation import evaluate
from evaluation.record import EvaluationRecord, read_per_user
from evaluation.result_files import EvaluationProtocol, write_results
from evaluation.statistics.intervals import mean
from evaluation.vector_scores import VectorScores
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import Manifest, read_manifest
from registry.gate.decide import decide
from registry.gate.gate_config import Decision
from trainers.factory import create_trainer
from trainers.loop.model_files import load_score

K = 50
METRIC = f"recall@{K}"
LOSS = 0.05
SEEDS = 5
LOG = SyntheticConfig(preset="small", num_users=6500, num_songs=2000, num_artists=400, num_events=1_000_000)
SPLIT = SplitConfig()
EPOCHS = 12
MODEL = {"architecture": "mf"}
TRAINING = {
    "batch_size": 8192,
    "num_negatives": 512,
    "lr": 0.02,
    "eval_k": K,
    "num_eval_users": None,
    "patience": EPOCHS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retrains", type=int, default=100, help="models to train (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where trained models are kept (default: a temporary folder)")
    chosen = parser.parse_args()
    if chosen.retrains < SEEDS + 2:
        parser.error(f"--retrains is {chosen.retrains}; at least {SEEDS + 2} are needed: a pair and five others")
    print_where()
    with TemporaryDirectory() as temporary:
        run((chosen.folder or Path(temporary)) / code()[:16], chosen.retrains)


def run(folder: Path, count: int) -> None:
    """Train the missing models, decide twice about each, and print the counts."""
    prepare(folder)
    started = time.perf_counter()
    graph = load_graph(folder / "training_graph.pt")
    bundles = [retrain(folder, graph, seed) for seed in range(count)]
    values = np.array([EvaluationRecord.read(bundle / "metrics.json").metrics[METRIC].mean for bundle in bundles])
    trained = time.perf_counter()
    print(f"trained  {count} models in {trained - started:.0f} s")
    spread = values.std(ddof=1) / values.mean()
    print(f"{METRIC} {values.mean():.4f} on average; standard deviation between seeds {spread:.2%} of it")
    same = [ring_decision(bundles, values, challenger, _leave_unchanged) for challenger in range(count)]
    report("no difference but the seed", same)
    worse = [ring_decision(bundles, values, challenger, _TakeRecall(graph)) for challenger in range(count)]
    report(f"a loss of {LOSS:.0%} put in", worse)
    print(f"decided  {2 * count} times in {time.perf_counter() - trained:.0f} s")


def prepare(folder: Path) -> None:
    """Make the log, its graph, its split and its audit, if they are missing."""
    if (folder / "training_graph.pt").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    write_log(LOG, folder / "log")
    config = IngestConfig.parse({"events": [str(folder / "log" / "*.parquet")]}, "ingest")
    (folder / "listens").mkdir()
    ingest(config, folder / "listens", find_files(config))
    graph = build_graph(folder / "listens")
    (folder / "profile.json").write_text(json.dumps(graph_profile(graph, folder / "listens")))
    listens = read_listens(folder / "listens")
    divided = split_graph(graph, SPLIT, listens)
    audit_graph(divided, listens).write(folder / "audit.json")
    save_graph(divided, folder / "training_graph.pt")


def retrain(folder: Path, graph: HeteroData, seed: int) -> Path:
    """Return the bundle of one seed; train it if it is missing."""
    home = folder / f"seed-{seed:03d}"
    if (home / "bundle" / "manifest.json").is_file():
        return home / "bundle"
    shutil.rmtree(home, ignore_errors=True)
    trainer = create_trainer("advanced", {**MODEL, **node_counts(graph)}, {**TRAINING, "seed": seed}, home / "training")
    trainer.train(graph, num_epochs=EPOCHS)
    model = trainer.save_model(home / "model")
    (home / "evaluation").mkdir()
    protocol = EvaluationProtocol(part="test", k=K)
    write_results(load_score(model), graph, folder / "listens", home / "evaluation", protocol)
    assemble_bundle(
        home / "bundle",
        model=model,
        vocabularies=folder / "listens",
        evaluation=home / "evaluation",
        graph=graph,
        source="synthetic",
        split=SPLIT.model_dump(mode="json"),
        profile=folder / "profile.json",
        audit=folder / "audit.json",
    )
    for part in ("training", "model", "evaluation"):
        shutil.rmtree(home / part)
    return home / "bundle"


Change = Callable[[Path, int], None]


def ring_decision(bundles: list[Path], values: np.ndarray, challenger: int, change: Change) -> Decision:
    """Let the gate decide about one retrain against the one before it."""
    count, profile = len(bundles), json.loads((bundles[0] / "profile.json").read_text())
    others = np.setdiff1d(np.arange(count), [challenger, (challenger - 1) % count])
    drawn = np.random.default_rng(challenger).choice(others, SEEDS, replace=False)
    with TemporaryDirectory() as temporary:
        bundle = Path(shutil.copytree(bundles[challenger], Path(temporary) / "bundle"))
        seeds = {"seeds": drawn.tolist(), "metrics": {METRIC: {"sd": float(values[drawn].std(ddof=1))}}}
        (bundle / "seeds.json").write_text(json.dumps(seeds))
        change(bundle, challenger)
        Manifest.of(bundle, read_manifest(bundle).facts).write(bundle)
        return decide(bundle, challenger, bundles[challenger - 1], [profile] * 5)


def _leave_unchanged(bundle: Path, seed: int) -> None:
    """Keep the retrain as it is."""


class _TakeRecall:
    """Takes a share of a model's recall away: users in random order get another user's vector until it is lost."""

    def __init__(self, graph: HeteroData) -> None:
        self.graph = graph

    def __call__(self, bundle: Path, seed: int) -> None:
        vectors = load_file(bundle / "embeddings.safetensors")
        drawn = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(len(vectors["user"])))
        swapped = vectors["user"][drawn]
        after = evaluate(VectorScores(swapped, vectors["song"]), self.graph, "test", K)
        before = read_per_user(bundle / "per_user.parquet", METRIC)[1]
        order = np.random.default_rng([seed, 2]).permutation(len(before))
        lost = np.cumsum((before - after.per_user[METRIC].numpy())[order])
        count = int(np.argmax(lost >= LOSS * before.sum())) + 1
        users = after.users[torch.from_numpy(order[:count])]
        vectors["user"][users] = swapped[users]
        save_file(vectors, bundle / "embeddings.safetensors")


def report(title: str, decisions: list[Decision]) -> None:
    """Print counts of outcomes with exact 95 % intervals (Clopper and Pearson, 1934)."""
    count, outcomes = len(decisions), Counter(decision.outcome for decision in decisions)
    gaps = np.array([decision.against_champion.mean for decision in decisions if decision.against_champion])
    value = mean([decision.champion_value for decision in decisions])
    users = {decision.compared_users for decision in decisions}
    print(f"\n{title}: {count} decisions on {min(users):,} users")
    print(f"difference {gaps.mean() / value:+.2%} on average, {gaps.std(ddof=1) / value:.2%} its standard deviation")
    needed = sorted(decision.needed_users for decision in decisions)
    print(f"needed users {needed[0]:,} to {needed[-1]:,}")
    rows = {
        **{name: outcomes[name] for name in ("promote", "hold", "reject")},
        "'better'": sum(d.better for d in decisions),
    }
    for name, found in rows.items():
        bounds = binomtest(found, count).proportion_ci(method="exact")
        print(f"{name:<9} {found:>4}   {bounds.low:.1%} to {bounds.high:.1%}")
    reasons = Counter(" ".join(d.reason.split()[:4]) for d in decisions)
    print("reasons  ", "; ".join(f"{number} {reason}" for reason, number in reasons.most_common()))


if __name__ == "__main__":
    main()

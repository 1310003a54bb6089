"""Measure the ranking of all songs for all users, compared with torch's bare product and top-k, on one and two threads.

We rank with and without hiding known songs, by vectors only and with the local channel. Nothing is trained: vectors are
random, and the local channel has its initial parameters. The default graph is made up, with the size and skew of the
train listens of lastfm-tracks; --config uses the graph of a config instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from config_graph import missing_data, training_graph
from machine import print_where
from meters import in_turns
from processes import environment, measure
from torch import Tensor
from torch.nn.functional import normalize
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, REV_BY, REV_LISTENS, has_masks, load_graph, message_graph, save_graph
from evaluation.ranking import rank
from evaluation.vector_scores import VectorScores
from models.item_paths.listened_songs import listened_songs
from models.item_paths.local_channel import LocalChannel

DIM, K = 64, 20
THREADS = (1, 2)
BARE_AT_ONCE = (16, 128)
"""Batch sizes of the bare product; the faster one counts."""

USERS, SONGS, ARTISTS = 6_171, 45_729, 3_290
SIZE_OF_USERS, SKEW_OF_USERS, SKEW = 24, 1.12, 1.0
"""Median number of songs of a user; standard deviation of its logarithm, and of the logarithms of all popularities."""

BARE, COUNTING = "bare product and top-k of torch", "counting the local channel's edges"
EDGES, MB = "bytes of edges", 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--config", help="use the graph of this config instead of a made-up one")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # for a process with its own number of threads
    chosen = parser.parse_args()
    if chosen.folder:
        measured = seconds(load_graph(chosen.folder / "graph.pt"), chosen.rounds)
        (chosen.folder / "measured.json").write_text(json.dumps(measured))
        return
    print_where()
    if chosen.config and (absent := missing_data(chosen.config)):
        raise SystemExit(absent)
    with TemporaryDirectory() as folder:
        print_table(Path(folder), chosen.config, chosen.rounds)


def print_table(folder: Path, config: str | None, rounds: int) -> None:
    """Measure everything, each number of threads in its own process, and print it."""
    graph = bench_graph(folder, config)
    save_graph(graph, folder / "graph.pt")
    users, songs = int(graph["user"].num_nodes), int(graph["song"].num_nodes)
    print(f"graph    {config or 'made up'}: {users:,} users, {songs:,} songs, {graph[LISTENS].num_edges:,} listens")
    print(f"ranking  {DIM} dimensions, float32, lists of {K}; medians of {rounds} turns\n")
    found = {threads: child(folder, rounds, threads) for threads in THREADS}
    for line in table(found):
        print(line)


def child(folder: Path, rounds: int, threads: int) -> dict[str, float]:
    """Measure in a process with this number of threads."""
    variables = {**environment(folder), "OMP_NUM_THREADS": str(threads)}
    measure(["benchmarks/ranking.py", "--folder", str(folder), "--rounds", str(rounds)], variables)
    measured: dict[str, float] = json.loads((folder / "measured.json").read_text())
    return measured


def bench_graph(folder: Path, config: str | None) -> HeteroData:
    """Make the train graph of a config, or a random one."""
    if not config:
        return random_graph(USERS, SONGS, ARTISTS, seed=0)
    graph = load_graph(training_graph(config, folder / "project"))
    return message_graph(graph) if has_masks(graph) else graph


def random_graph(users: int, songs: int, artists: int, seed: int) -> HeteroData:
    """Make a graph in which users draw songs, and songs draw artists, by popularities with a long tail."""
    rng = np.random.default_rng(seed)
    sizes = np.clip(rng.lognormal(np.log(SIZE_OF_USERS), SKEW_OF_USERS, users), 5, songs // 40).astype(np.int64)
    user = np.repeat(np.arange(users), sizes)
    listens = np.unique(np.stack([user, _draw_by_popularity(rng, songs, len(user))]), axis=1)
    graph = HeteroData()
    for kind, count in (("user", users), ("song", songs), ("artist", artists)):
        graph[kind].num_nodes = count
    by = np.stack([np.arange(songs), _draw_by_popularity(rng, artists, songs)])
    for edges, reverse, pairs in ((LISTENS, REV_LISTENS, listens), (BY, REV_BY, by)):
        graph[edges].edge_index = torch.from_numpy(pairs)
        graph[reverse].edge_index = torch.from_numpy(pairs).flip(0)
    return graph


def _draw_by_popularity(rng: np.random.Generator, nodes: int, count: int) -> np.ndarray:
    popularity = rng.lognormal(0, SKEW, nodes)
    return rng.choice(nodes, count, p=popularity / popularity.sum())


def seconds(graph: HeteroData, rounds: int) -> dict[str, float]:
    """Measure median seconds by name, and the bytes of the local channel's edges."""
    known = listened_songs(graph)
    generator, count = torch.Generator().manual_seed(0), len(known.log_listens)
    user = normalize(torch.randn(count, DIM, generator=generator))
    song = normalize(torch.randn(len(known.log_listeners), DIM, generator=generator))
    local, everyone, seen = LocalChannel().scorer(known), torch.arange(count), graph[LISTENS].edge_index

    def count_edges() -> None:
        vars(local).pop("edges", None)
        _ = local.edges

    runs: dict[str, Callable[[], object]] = {
        **{f"{BARE}, {size} at once": lambda size=size: bare(user, song, size) for size in BARE_AT_ONCE},
        **{
            f"{name}, {what}": lambda score=score, hidden=hidden: rank(score, everyone, hidden, K)
            for name, score in (
                ("vectors", VectorScores(user, song)),
                ("local channel", VectorScores(user, song, local)),
            )
            for what, hidden in (("seen hidden", seen), ("nothing hidden", None))
        },
        COUNTING: count_edges,
    }
    return {**in_turns(runs, rounds), EDGES: bytes_of_edges(local)}


def bytes_of_edges(local: Any) -> int:
    """Count the bytes of the edges, without the unused room at the end of rows."""
    return sum(
        int((edges.stop - edges.start).sum()) * (edges.candidate.itemsize + edges.weight.itemsize * len(edges.weight))
        for edges in local.edges
    )


def bare(user: Tensor, song: Tensor, at_once: int) -> list[Any]:
    """Compute the product and the top k only: the minimum work of any ranking."""
    return [(batch @ song.T).topk(K) for batch in user.split(at_once)]


def table(found: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Return a line for each kind of ranking: seconds, and the ratio to the bare product."""
    names = [name for name in found[1] if name != EDGES]
    titles = [f"{threads} thread{'s' * (threads > 1)}, s" for threads in found]
    lines = [f"{'':46}" + "".join(f"{title:>14}{'x bare':>8}" for title in titles)]
    for name in names:
        row = f"{name:46}"
        for measured in found.values():
            least = min(measured[other] for other in names if other.startswith(BARE))
            row += f"{measured[name]:14.2f}{measured[name] / least:8.2f}"
        lines.append(row)
    return [*lines, "", f"the local channel's edges are counted once a model and held: {found[1][EDGES] / MB:.0f} MB"]


if __name__ == "__main__":
    main()

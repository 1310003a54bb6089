"""Measure a full-graph step of graph attention, forward and backward: ours, our reference, and PyG's GATConv.

All have the same edges, dimensions, heads and layers, and run in turns. Memory is measured in a separate process, above
the memory of the model and the graph. The script also prints how fast this machine copies memory, and which share of
that speed a step reaches. It uses lastfm-tracks if SONGGRAPH_BENCH_DATA has it, else a made-up log of similar size.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import torch
from config_graph import missing_data
from machine import print_where
from meters import forget_peak, in_turns, peak
from processes import environment, measure
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv

from data.events.ingest import ingest
from data.graph import EDGE_TYPES, NODE_TYPES, build_graph, load_graph, message_graph, save_graph
from data.synthetic.log import write_log
from data.training_graph import split_graph
from models.gat import DegreeAttention
from models.graph.adjacency import adjacency
from tasks.run_config import RunConfig, load_run_config

DIM, HEADS, LAYERS = 64, 4, 2
CORES = (1, 2)
COPIED = 2**28
"""Bytes of the array to copy, to measure the bandwidth."""

MB = 10**6
OURS, REFERENCE, PYG = "ours, fused", "ours, MessagePassing", "PyG HeteroConv(GATConv)"
SYNTHETIC = {"num_users": 6_000, "num_songs": 46_000, "num_artists": 3_000, "num_events": 900_000}

Step = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for the seconds only (default: %(default)s)")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # for the separate processes
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        measured = PARTS[chosen.part](load_graph(chosen.folder / "graph.pt"), chosen)
        (chosen.folder / "measured.json").write_text(json.dumps(measured))
        return
    print_where()
    with TemporaryDirectory() as folder:
        print_table(Path(folder), chosen.rounds, chosen.device)


def print_table(folder: Path, rounds: int, device: str) -> None:
    """Measure everything, each part in its own process, and print it."""
    graph, name = bench_graph(folder)
    save_graph(graph, folder / "graph.pt")
    edges = sum(graph[kind].num_edges for kind in EDGE_TYPES)
    nodes = sum(int(graph[kind].num_nodes) for kind in NODE_TYPES)
    print(f"graph    {name}: {nodes:,} nodes, {edges:,} directed edges")
    print(f"step     {DIM} dimensions, {HEADS} heads, {LAYERS} layers, float32; medians of {rounds} turns\n")
    variables = environment(folder)

    def child(part: str, *more: str) -> Any:
        given = ["benchmarks/attention.py", "--part", part, "--folder", str(folder), *more]
        measure(given, variables)
        return json.loads((folder / "measured.json").read_text())

    seconds = child("seconds", "--rounds", str(rounds), "--device", device)
    memory = {which: child(which) for which in STEPS} if device == "cpu" else {}
    for line in table(seconds, memory):
        print(line)
    if device == "cpu":
        for line in bandwidth(seconds, bytes_of_a_step(nodes, edges)):
            print(line)


def bench_graph(folder: Path) -> tuple[HeteroData, str]:
    """Return the train graph of lastfm-tracks, or of a made-up log, and its name."""
    if not missing_data("configs/lastfm-tracks.toml"):
        return train_graph(load_run_config("configs/lastfm-tracks.toml"), folder), "lastfm-tracks, train"
    run = load_run_config("configs/synthetic.toml", {"synthetic": SYNTHETIC})
    write_log(run.synthetic, folder / "log")
    return train_graph(run, folder, folder / "log"), "made up, train"


def train_graph(run: RunConfig, folder: Path, log: Path | None = None) -> HeteroData:
    """Make the train graph of a log."""
    listens = folder / "listens"
    listens.mkdir()
    ingest(run.ingest.model_copy(update={"events": (str(log),)}), listens)
    graph = build_graph(listens, run.weights)
    return message_graph(split_graph(graph, run.split, pq.read_table(listens / "listens.parquet")))


def our_step(graph: HeteroData, device: torch.device, fuse: bool) -> Step:
    """Create a step of our layers; the step returns the gradient of the node vectors."""
    edges = adjacency(graph, device)
    layers = nn.ModuleList(DegreeAttention(DIM, HEADS) for _ in range(LAYERS)).to(device)
    for layer in layers:
        layer.fuse = fuse
    randomise(layers)
    return step(edges.num_nodes, device, layers, lambda layer, x: layer(x, edges))


def randomise(layers: nn.Module) -> None:
    """Move the parameters away from their initial zeros, in the same way for each kind of step."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.device)


def pyg_step(graph: HeteroData, device: torch.device) -> Step:
    """Create a step of PyG's layers, one GATConv per edge type."""
    counts = [int(graph[kind].num_nodes) for kind in NODE_TYPES]
    edges = {kind: graph[kind].edge_index.to(device) for kind in EDGE_TYPES}

    def layer() -> HeteroConv:
        return HeteroConv({kind: GATConv(DIM, DIM // HEADS, HEADS, add_self_loops=False) for kind in EDGE_TYPES})

    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        out = layer(dict(zip(NODE_TYPES, x.split(counts), strict=True)), edges)
        return torch.cat([out[kind] for kind in NODE_TYPES])

    return step(sum(counts), device, nn.ModuleList(layer() for _ in range(LAYERS)).to(device), forward)


def step(
    nodes: int, device: torch.device, layers: nn.ModuleList, forward: Callable[[nn.Module, Tensor], Tensor]
) -> Step:
    """Create a step that sums the input and all layers, as the models do, and propagates a fixed gradient back."""
    generator = torch.Generator().manual_seed(0)
    table = (0.1 * torch.randn(nodes, DIM, generator=generator)).to(device).requires_grad_()
    up = torch.randn(nodes, DIM, generator=generator).to(device)

    def run() -> Tensor:
        x: Tensor = table
        total = x
        for layer in layers:
            x = forward(layer, x)
            total = total + x
        table.grad = None
        layers.zero_grad()
        total.backward(up)
        assert table.grad is not None
        return table.grad

    return run


STEPS: dict[str, Callable[[HeteroData, torch.device], Step]] = {
    OURS: lambda graph, device: our_step(graph, device, fuse=True),
    REFERENCE: lambda graph, device: our_step(graph, device, fuse=False),
    PYG: pyg_step,
}


def seconds_of_steps(graph: HeteroData, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure median seconds by name and cores, also of a memory copy, and our difference to the reference."""
    device = torch.device(chosen.device)
    steps = {name: build(graph, device) for name, build in STEPS.items()}
    ours, reference = steps[OURS](), steps[REFERENCE]()
    source = torch.ones(COPIED // 4, device=device)
    copy = torch.empty_like(source)
    runs: dict[str, Callable[[], object]] = {**steps, "copy": lambda: copy.copy_(source)}
    found: dict[str, Any] = {"difference": float((ours - reference).abs().max() / reference.abs().max())}
    for cores in CORES if device.type == "cpu" else (1,):
        torch.set_num_threads(cores)
        found[str(cores)] = in_turns(runs, chosen.rounds)
    return found


def bytes_above(name: str) -> Callable[[HeteroData, argparse.Namespace], int]:
    """Return a function that measures the peak memory of two steps, above that of the model and the graph."""

    def measured(graph: HeteroData, _: argparse.Namespace) -> int:
        torch.set_num_threads(1)
        STEPS[name](tiny(graph), torch.device("cpu"))()  # libraries and compiled loops are loaded
        run = STEPS[name](graph, torch.device("cpu"))
        gc.collect()
        before = forget_peak()
        run()
        run()
        return peak() - before

    return measured


def tiny(graph: HeteroData) -> HeteroData:
    """Make a graph of a few nodes and edges, to load libraries and compile loops with little memory."""
    small = HeteroData()
    for kind in NODE_TYPES:
        small[kind].num_nodes = 1 + int(graph[EDGE_TYPES[0]].edge_index[:, :8].max())
    for kind in EDGE_TYPES:
        small[kind].edge_index = torch.arange(8).expand(2, 8) % small["user"].num_nodes
        small[kind].weight = torch.ones(8)
    return small


def bytes_of_a_step(nodes: int, edges: int) -> int:
    """Estimate the bytes that a fused float32 step reads and writes if no vector stays in a cache between two edges.

    Per layer: one vector per edge in each direction; about eight times each node's vectors; four indices or logarithms
    per edge, twice; one term per head, twice; and the gradients of the scores, written and read.
    """
    return 4 * LAYERS * (2 * edges * DIM + 8 * nodes * DIM + edges * (2 * 4 + 1) + 4 * edges * HEADS)


def table(seconds: dict[str, Any], memory: dict[str, int]) -> list[str]:
    """Return a line for each kind of step."""
    cores = [str(number) for number in CORES if str(number) in seconds]
    titles = [f"{number} core{'s' * (number != '1')}, s" for number in cores]
    head = f"{'':24}" + "".join(f"{title:>12}{'x ours':>8}" for title in titles)
    lines = [head + (f"{'MB':>8}{'x ours':>8}" if memory else "")]
    for name in STEPS:
        times = [(seconds[number][name], seconds[number][name] / seconds[number][OURS]) for number in cores]
        row = f"{name:24}" + "".join(f"{taken:12.3f}{ratio:8.1f}" for taken, ratio in times)
        lines.append(row + (f"{memory[name] / MB:8.0f}{memory[name] / memory[OURS]:8.1f}" if memory else ""))
    return [*lines, "", f"fused and reference differ by {seconds['difference']:.0e} of the greatest gradient"]


def bandwidth(seconds: dict[str, Any], moved: int) -> list[str]:
    """Compare the bytes per second of a step with those of a memory copy, and the speed-up by a second core."""
    lines = [f"a fused step moves {moved / 1e9:.2f} GB if no cache helps"]
    for cores in CORES:
        threads = f"{cores} thread{'s' * (cores > 1)}"
        rate, copied = moved / seconds[str(cores)][OURS], 2 * COPIED / seconds[str(cores)]["copy"]
        lines.append(f"{threads}: {rate / 1e9:.1f} GB/s, {rate / copied:.0%} of copying's {copied / 1e9:.1f}")
    ours, copying = (seconds["1"][name] / seconds["2"][name] for name in (OURS, "copy"))
    return [*lines, f"two threads are {ours:.2f} times as fast as one; copying {copying:.2f} times"]


PARTS = {"seconds": seconds_of_steps, **{name: bytes_above(name) for name in STEPS}}

if __name__ == "__main__":
    main()

"""Sampled neighbourhoods: the edges that the vectors of a few nodes need, drawn uniformly, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from models.graph.adjacency import OPPOSITE, Adjacency, DirectedEdges, build_adjacency

LeftOut = Callable[[Tensor, Tensor], Tensor]
"""Takes users (M,) and songs (M,), counted from 0; returns which pairs carry no message: (M,) bool."""


class EdgeSample(NamedTuple):
    """Edges that were drawn: their positions (M,) in an ``Adjacency``, and the factor (M,) float64 of each.

    From the n neighbours of a row, k = min(n, most) are drawn, and the factor is n / k. So the sum over the sample,
    times the factor, is an unbiased estimate of the sum over all neighbours.
    """

    edge: Tensor
    factor: Tensor


class Block(NamedTuple):
    """The edges of one layer of messages.

    Attributes:
        edges: edges between the nodes that send, in the order of their vectors, with the degrees of the whole graph.
            The compiled sums need the reverse of every edge, so reverses that were not drawn are included.
        keep: (E,) factor of each edge; 0 if it was not drawn or carries no message.
        targets: (T,) places of the nodes that receive, among those that send; None if all receive.
    """

    edges: Adjacency
    keep: Tensor | None = None
    targets: Tensor | None = None

    def rows_of_targets(self, vectors: Tensor) -> Tensor:
        """Return the rows (T, D) of the nodes that receive."""
        return vectors if self.targets is None else vectors.index_select(0, self.targets)


class Neighborhood(NamedTuple):
    """All nodes and edges that the vectors of some nodes (the seeds) are computed from.

    Attributes:
        nodes: (M,) rows of the node table, ascending.
        blocks: one per layer, in the order in which layers run; the targets of the last block are the seeds.
    """

    nodes: Tensor
    blocks: tuple[Block, ...]


class NeighborSampler(NamedTuple):
    """Draws neighbourhoods; its memory grows with the number of seeds and neighbours, not with the graph.

    Source: Hamilton, Ying, Leskovec, "Inductive Representation Learning on Large Graphs", NeurIPS 2017.

    Attributes:
        num_neighbors: the most neighbours of a node in each layer, the layer nearest to the seeds first.
        generator: random state; the same state gives the same neighbourhood.
        left_out: says which user-song pairs carry no message.
    """

    num_neighbors: Sequence[int]
    generator: Generator
    left_out: LeftOut

    def neighborhood(self, edges: Adjacency, num_users: int, seeds: Tensor) -> Neighborhood:
        """Sample the neighbourhood of ``seeds`` (S,), which are nodes of the graph in ascending order."""
        nodes, blocks = seeds, []
        for most in self.num_neighbors:
            sample = sample_edges(edges, nodes, most, self.generator)
            senders = torch.cat([nodes, edges.source[sample.edge].long()]).unique()
            blocks.append(self._block(edges, num_users, sample, senders, nodes))
            nodes = senders
        return Neighborhood(nodes, tuple(reversed(blocks)))

    def _block(self, edges: Adjacency, num_users: int, sample: EdgeSample, senders: Tensor, targets: Tensor) -> Block:
        source, target = edges.source[sample.edge].long(), edges.target[sample.edge].long()
        user, song = torch.minimum(source, target), torch.maximum(source, target) - num_users
        listens = user < num_users  # in other relations the smaller node is a song
        silent = listens & self.left_out(user.where(listens, 0), song.where(listens, 0))
        drawn, keep = _both_directions(edges, sample._replace(factor=sample.factor.masked_fill(silent, 0)), senders)
        block_edges = replace(build_adjacency(drawn, len(senders)), degree=edges.degree[senders])
        return Block(block_edges, keep, torch.searchsorted(senders, targets))


def sample_edges(edges: Adjacency, rows: Tensor, most: int, generator: Generator) -> EdgeSample:
    """Sample at most ``most`` edges of each row (R,), uniformly without replacement.

    The edges of a row stay in the order of the graph.
    """
    start = edges.row_start[rows].long()
    size = edges.row_start[rows + 1].long() - start
    taken = size.clamp(max=most)
    owner = torch.arange(len(rows), device=rows.device).repeat_interleave(taken)
    place = torch.arange(len(owner), device=rows.device) - (taken.cumsum(0) - taken)[owner]
    large = size > most
    if large.any():
        place[large[owner]] = random_subsets(size[large], most, generator).flatten()
    return EdgeSample(start[owner] + place, (size.double() / taken)[owner])


def random_subsets(sizes: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw ``count`` <= n distinct numbers below n for each size n (R,), ascending: (R, count).

    All subsets are equally likely. This is Floyd's algorithm on all rows at once; its memory does not depend on the
    sizes. Source: Bentley and Floyd, "A sample of brilliance", Communications of the ACM 30(9), 1987.
    """
    draws = torch.rand(len(sizes), count, generator=generator, dtype=torch.float64).to(sizes.device)
    chosen = torch.empty(len(sizes), count, dtype=torch.long, device=sizes.device)
    for n in range(count):
        last = sizes - count + n
        number = (draws[:, n] * (last + 1)).long()
        taken = (chosen[:, :n] == number[:, None]).any(1)
        chosen[:, n] = torch.where(taken, last, number)
    return chosen.sort(1).values


def _both_directions(edges: Adjacency, sample: EdgeSample, nodes: Tensor) -> tuple[DirectedEdges, Tensor]:
    """Return the drawn edges and their reverses, each once, with ends numbered by ``nodes``, and the factor of each."""
    source, target = (torch.searchsorted(nodes, end[sample.edge].long()) for end in (edges.source, edges.target))
    relation, weight = edges.relation[sample.edge].long(), edges.weight[sample.edge]
    drawn, reverse = target * len(nodes) + source, source * len(nodes) + target
    keys, place = torch.cat([drawn, reverse]).unique(return_inverse=True)
    opposite = torch.tensor(OPPOSITE, device=relation.device)[relation]
    relations = _scattered(place, torch.cat([relation, opposite]), len(keys))
    weights = _scattered(place, torch.cat([weight, weight]), len(keys))
    factors = _scattered(place[: len(drawn)], sample.factor, len(keys))
    return DirectedEdges(keys % len(nodes), keys // len(nodes), relations, weights), factors


def _scattered(place: Tensor, values: Tensor, size: int) -> Tensor:
    out = values.new_zeros(size)
    out[place] = values
    return out

"""What a few nodes need of a large graph: uniform samples of their neighbours, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from models.graph.adjacency import OPPOSITE, Adjacency, DirectedEdges, csr_of

LeftOut = Callable[[Tensor, Tensor], Tensor]
"""Says of users and songs (M,), songs counted from 0, which pairs carry no message: (M,) bool."""


class Sample(NamedTuple):
    """Edges that were drawn: their positions (M,) in an ``Adjacency``, and the factor (M,) float64 of each.

    Of the n neighbours of a row, min(n, most) are drawn, and the factor is n over that: a sum over the sample, times
    the factor, is an unbiased estimate of the sum over all neighbours.
    """

    edge: Tensor
    factor: Tensor


class Block(NamedTuple):
    """The edges that messages of one layer take.

    Attributes:
        edges: over the nodes that send, in the order of their vectors. Degrees are those of the whole graph. A
            compiled sum needs every edge's reverse, so those that were not drawn are there too.
        keep: (E,) factor of each edge; 0 on those that were not drawn or carry no message.
        targets: (T,) places, among the nodes that send, of those that receive; None if all of them do.
    """

    edges: Adjacency
    keep: Tensor | None = None
    targets: Tensor | None = None

    def received(self, vectors: Tensor) -> Tensor:
        """The rows (T, D) of the nodes that receive."""
        return vectors if self.targets is None else vectors.index_select(0, self.targets)


class Neighborhood(NamedTuple):
    """What the vectors of some nodes are made of.

    Attributes:
        nodes: (M,) rows of the node table, ascending.
        blocks: one a layer, in the order in which layers run; the last one's targets are the seeds.
    """

    nodes: Tensor
    blocks: tuple[Block, ...]


class Sampler(NamedTuple):
    """Draws neighbourhoods; what it holds and makes has the size of seeds and fan-out, not of the graph.

    Source: Hamilton, Ying, Leskovec, "Inductive Representation Learning on Large Graphs", NeurIPS 2017.

    Attributes:
        fan_out: most neighbours of a node in each layer, that nearest to the seeds first.
        generator: of the draws; the same state gives the same neighbourhood.
        left_out: the user-song pairs without messages.
    """

    fan_out: Sequence[int]
    generator: Generator
    left_out: LeftOut

    def neighborhood(self, edges: Adjacency, num_users: int, seeds: Tensor) -> Neighborhood:
        """All that the vectors of ``seeds`` (S,), ascending nodes of the graph, are made of."""
        nodes, blocks = seeds, []
        for most in self.fan_out:
            sample = sample_edges(edges, nodes, most, self.generator)
            senders = torch.cat([nodes, edges.source[sample.edge].long()]).unique()
            blocks.append(self._block(edges, num_users, sample, senders, nodes))
            nodes = senders
        return Neighborhood(nodes, tuple(reversed(blocks)))

    def _block(self, edges: Adjacency, num_users: int, sample: Sample, senders: Tensor, targets: Tensor) -> Block:
        source, target = edges.source[sample.edge].long(), edges.target[sample.edge].long()
        user, song = torch.minimum(source, target), torch.maximum(source, target) - num_users
        listens = user < num_users  # the lesser end of the other edges is a song
        silent = listens & self.left_out(user.where(listens, 0), song.where(listens, 0))
        local, keep = _both_directions(edges, sample._replace(factor=sample.factor.masked_fill(silent, 0)), senders)
        part = replace(csr_of(local, len(senders)), degree=edges.degree[senders])
        return Block(part, keep, torch.searchsorted(senders, targets))


def sample_edges(edges: Adjacency, rows: Tensor, most: int, generator: Generator) -> Sample:
    """Of each row (R,), ``most`` of its edges, uniformly without replacement, or all if there are no more.

    The edges of a row stay in the order of the graph.
    """
    start = edges.row_start[rows].long()
    size = edges.row_start[rows + 1].long() - start
    taken = size.clamp(max=most)
    owner = torch.arange(len(rows), device=rows.device).repeat_interleave(taken)
    place = torch.arange(len(owner), device=rows.device) - (taken.cumsum(0) - taken)[owner]
    large = size > most
    if large.any():
        place[large[owner]] = subsets(size[large], most, generator).flatten()
    return Sample(start[owner] + place, (size.double() / taken)[owner])


def subsets(sizes: Tensor, count: int, generator: Generator) -> Tensor:
    """For each size n (R,), ``count`` <= n different numbers below n, ascending; every subset is as likely: (R, count).

    Floyd's algorithm, all rows at once: its memory does not depend on the sizes. Source: Bentley and Floyd, "A sample
    of brilliance", Communications of the ACM 30(9), 1987.
    """
    draws = torch.rand(len(sizes), count, generator=generator, dtype=torch.float64).to(sizes.device)
    chosen = torch.empty(len(sizes), count, dtype=torch.long, device=sizes.device)
    for n in range(count):
        last = sizes - count + n
        number = (draws[:, n] * (last + 1)).long()
        taken = (chosen[:, :n] == number[:, None]).any(1)
        chosen[:, n] = torch.where(taken, last, number)
    return chosen.sort(1).values


def _both_directions(edges: Adjacency, sample: Sample, nodes: Tensor) -> tuple[DirectedEdges, Tensor]:
    """The drawn edges and their reverses, each once, by target and source among ``nodes``; the factor of each."""
    source, target = (torch.searchsorted(nodes, end[sample.edge].long()) for end in (edges.source, edges.target))
    relation, weight = edges.relation[sample.edge].long(), edges.weight[sample.edge]
    drawn, reverse = target * len(nodes) + source, source * len(nodes) + target
    keys, place = torch.cat([drawn, reverse]).unique(return_inverse=True)
    opposite = torch.tensor(OPPOSITE, device=relation.device)[relation]
    relations = _placed(place, torch.cat([relation, opposite]), len(keys))
    weights = _placed(place, torch.cat([weight, weight]), len(keys))
    factors = _placed(place[: len(drawn)], sample.factor, len(keys))
    return DirectedEdges(keys % len(nodes), keys // len(nodes), relations, weights), factors


def _placed(place: Tensor, values: Tensor, size: int) -> Tensor:
    out = values.new_zeros(size)
    out[place] = values
    return out

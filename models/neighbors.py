"""From nodes to edges and back, never holding edges x dimensions, forward or backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.adjacency import Adjacency


def neighbor_sum(graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
    """Sum of each node's neighbours' vectors, one weight an edge and head.

    ``out[i, h] = sum over edges (j -> i) of weight[edge, h] * x[j, h]``, differentiable in ``weight`` and ``x``.

    Shapes: E edges, N nodes, H heads, C channels a head.
        weight (E, H), x (N, H, C) -> (N, H, C).
    """
    out: Tensor = _NeighborSum.apply(graph, weight, x)
    return out


def edge_sums(graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
    """For every edge, what its target and its source bring to the edge's relation, added up.

    Shapes: N nodes, R relations, K values, E edges. target (N, R, K), source (N, R, K) -> (E, K).
    """
    out: Tensor = _EdgeSums.apply(graph, target, source)
    return out


class _EdgeSums(torch.autograd.Function):
    """Two look-ups; their gradients are sums over the edges of a slot, which as sparse products run in parallel."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
        ctx.graph, ctx.shape = graph, target.shape
        out = target.flatten(0, 1).index_select(0, graph.target_slot)
        return out.add_(source.flatten(0, 1).index_select(0, graph.source_slot))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        graph, grad = ctx.graph, grads[0].contiguous()
        in_order = torch.arange(len(grad), dtype=torch.int32, device=grad.device)
        target = _row_sums(graph.target_slots, in_order, grad)
        source = _row_sums(graph.source_slots, graph.reverse.int(), grad)
        return None, target.view(ctx.shape), source.view(ctx.shape)


def _row_sums(row_start: Tensor, edges: Tensor, values: Tensor) -> Tensor:
    """Sum of the ``values`` (E, K) of each row's edges: (rows, K)."""
    size = (len(row_start) - 1, len(values))
    ones = values.new_ones(len(edges))
    return _multiply(torch.sparse_csr_tensor(row_start, edges, ones, size=size, check_invariants=False), values)


class _NeighborSum(torch.autograd.Function):
    """One sparse product a head; the gradient of the weights is a product sampled at the edges (SDDMM)."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(weight, x)
        return _sums(graph, weight, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        weight, x = ctx.saved_tensors
        grad, graph = grads[0].contiguous(), ctx.graph
        grad_weight = _edge_products(graph, grad, x) if ctx.needs_input_grad[1] else None
        # the pattern is its own transpose, so the transposed matrix is the same rows with the reverse edges' weights
        grad_x = _sums(graph, weight.index_select(0, graph.reverse), grad) if ctx.needs_input_grad[2] else None
        return None, grad_weight, grad_x


def _sums(graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for head in range(x.shape[1]):
        out[:, head] = _multiply(graph.matrix(weight[:, head].contiguous()), x[:, head].contiguous())
    return out


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    # on the CPU torch's own kernel is faster than the general product, on CUDA only the latter exists
    return matrix @ x if x.is_cuda else torch.sparse.mm(matrix, x, "sum")


def _edge_products(graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
    """``target[i, h] . source[j, h]`` at every edge (j -> i): (E, H)."""
    columns = []
    pattern = graph.matrix(target.new_zeros(len(graph.source)))
    for head in range(target.shape[1]):
        left, right = target[:, head].contiguous(), source[:, head].contiguous()
        columns.append(torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values())
    return torch.stack(columns, dim=1)

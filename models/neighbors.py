"""Weighted sums over neighbours that never hold edges x dimensions, forward or backward."""

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
        grad_x = _sums(graph, weight[graph.reverse], grad) if ctx.needs_input_grad[2] else None
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

"""From nodes to edges and back, never holding edges x dimensions, forward or backward.

On the CPU the loops are those of ``models.kernels.attention``; elsewhere, and in half precision, torch's sparse
products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.graph.adjacency import OPPOSITE, Adjacency
from models.kernels.attention import (
    Edges,
    Factors,
    Partial,
    Score,
    attend,
    attend_backward,
    attend_backward_targets,
    node_terms,
    sum_neighbors,
    sum_neighbors_backward,
)
from models.kernels.compiled import in_parallel

THREAD_WORK = 2**17
"""Edges x dimensions for which another thread is worth starting."""


class EdgeFactors(NamedTuple):
    """What the weights of the edges are multiplied by, besides what they are computed from.

    ``keep`` (E,), of the dtype of the weights, is a constant for autograd; 0 leaves an edge out. ``dropout`` is the
    chance of each edge to be left out in each head, the others being scaled up; ``seed``, below 2^32, draws it.
    """

    keep: Tensor | None = None
    dropout: float = 0.0
    seed: int = 0

    @property
    def threshold(self) -> int:
        """The least 32-bit draw that keeps an edge."""
        return round(self.dropout * 2**32)

    def apply(self, weight: Tensor) -> Tensor:
        """The weights (E, H) times the factors: what the kernels do, with torch's operators."""
        if self.keep is not None:
            weight = weight * self.keep[:, None]
        if self.threshold:
            weight = weight * (drawn(weight.shape, self.seed, weight.device) >= self.threshold) / (1 - self.dropout)
        return weight


def drawn(shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """32 random bits for each entry, int64, a function of its number and the seed alone.

    So a mask need not be kept for the backward pass, and all paths drop the same edges. The hash is C. Wellons's
    ``lowbias32``.
    """
    bits = torch.arange(shape.numel(), device=device).bitwise_and_(0xFFFFFFFF).bitwise_xor_(seed)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return (bits ^ (bits >> 16)).view(shape)


class AttentionParameters(NamedTuple):
    """Of a ``DegreeAttention``: query, key (R, H, C), bias and degree powers (R, H), power of the confidence (H,)."""

    query: Tensor
    key: Tensor
    bias: Tensor
    source_power: Tensor
    target_power: Tensor
    confidence_power: Tensor


class ScoreRule(NamedTuple):
    """Slope of the LeakyReLU on the learned score, and the bounds of the whole one."""

    slope: float
    low: float
    high: float


def has_kernels(x: Tensor) -> bool:
    """Whether sums over ``x`` run in compiled loops."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def attended_sum(
    graph: Adjacency, x: Tensor, parameters: AttentionParameters, rule: ScoreRule, factors: EdgeFactors
) -> Tensor:
    """``neighbor_sum`` with the weights of ``DegreeAttention``, computed in passing and again for the gradients.

    Differentiable once in ``x`` and the parameters. Only where ``has_kernels``.

    Shapes: x (N, H, C) -> (N, H, C).

    Raises:
        ValueError: ``x`` or ``keep`` is not of the graph's size.
    """
    _check("x", x, graph.num_nodes)
    if factors.keep is not None:
        _check("keep", factors.keep, len(graph.source))
    out: Tensor = _AttendedSum.apply(graph, rule, factors, x, *parameters)
    return out


def neighbor_sum(graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
    """Sum of each node's neighbours' vectors, one weight an edge and head.

    ``out[i, h] = sum over edges (j -> i) of weight[edge, h] * x[j, h]``, differentiable in ``weight`` and ``x``.

    Shapes: E edges, N nodes, H heads, C channels a head.
        weight (E, H), x (N, H, C) -> (N, H, C).

    Raises:
        ValueError: ``weight`` or ``x`` is not of the graph's size.
    """
    _check("x", x, graph.num_nodes)
    _check("weight", weight, len(graph.source))
    function = _NeighborSum if has_kernels(x) else _SparseNeighborSum
    out: Tensor = function.apply(graph, weight, x)
    return out


def edge_sums(graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
    """For every edge, what its target and its source bring to the edge's relation, added up.

    Shapes: N nodes, R relations, K values, E edges. target (N, R, K), source (N, R, K) -> (E, K).
    """
    out: Tensor = _EdgeSums.apply(graph, target, source)
    return out


def _check(name: str, given: Tensor, rows: int) -> None:
    if len(given) != rows:  # a compiled loop would read beyond the end
        raise ValueError(f"{name} has {len(given)} rows; this graph needs {rows}.")


def _run(kernel: Callable[..., None], graph: Adjacency, like: Tensor, *arguments: Any) -> None:
    work = len(graph.source) * like[0].numel()
    threads = min(torch.get_num_threads(), 1 + work // THREAD_WORK)
    in_parallel(kernel, threads, len(graph.parts) - 1, *arguments)


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().contiguous().numpy()


def _unsigned(tensor: Tensor) -> npt.NDArray[Any]:
    return _numpy(tensor).view(np.uint32)  # an index that cannot be negative needs no care


def _edges(graph: Adjacency) -> Edges:
    indices = (_unsigned(index) for index in (graph.source, graph.target, graph.reverse))
    return Edges(_numpy(graph.parts), _numpy(graph.row_start), *indices)


class _AttendedSum(torch.autograd.Function):
    """The kernels of the attention; nothing but its inputs and (N R, H) terms is kept between the passes."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, rule: ScoreRule, factors: EdgeFactors, x: Tensor, *given: Tensor) -> Tensor:
        parameters, x = AttentionParameters(*given), x.contiguous()
        target = _node_terms(graph, graph.target_slots, x, parameters.query)
        source = _node_terms(graph, graph.source_slots, x, parameters.key)
        ctx.graph, ctx.rule, ctx.factors = graph, rule, factors
        ctx.save_for_backward(x, target, source, *parameters)
        score, out = _score(graph, rule, target, source, parameters), torch.empty_like(x)
        _run(attend, graph, x, _edges(graph), score, _factors(factors, x), _numpy(x), _numpy(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, target, source, *given = ctx.saved_tensors
        parameters, graph = AttentionParameters(*given), ctx.graph
        edges, partial = _edges(graph), _partial(graph, parameters)
        score = _score(graph, ctx.rule, target, source, parameters)
        grad_x, grad_learned = torch.empty_like(x), x.new_empty(len(graph.source), x.shape[1])
        of, to, learned = _numpy(x), _numpy(grad_x), _numpy(grad_learned)
        key, query, grad = _numpy(parameters.key), _numpy(parameters.query), _numpy(grads[0])
        factors = _factors(ctx.factors, x)
        _run(attend_backward, graph, x, edges, score, factors, of, key, grad, to, learned, partial)
        _run(attend_backward_targets, graph, x, edges, score.relation, of, query, learned, to, partial)
        return None, None, None, grad_x, *_parameter_gradients(partial)


def _node_terms(graph: Adjacency, slots: Tensor, x: Tensor, vectors: Tensor) -> Tensor:
    """What each node brings to the learned scores at one end of its edges: (N R, H)."""
    out = x.new_empty(len(x) * len(vectors), x.shape[1])
    _run(node_terms, graph, x, *map(_numpy, (graph.parts, slots, x, vectors, out)))
    return out


def _score(graph: Adjacency, rule: ScoreRule, target: Tensor, source: Tensor, parameters: AttentionParameters) -> Score:
    confidence_power = parameters.confidence_power.expand_as(parameters.bias)
    powers = (parameters.bias, -parameters.source_power, -parameters.target_power, confidence_power)
    logs = (graph.log_confidence.to(target.dtype), graph.log_degree.to(target.dtype))
    same, opposite = np.arange(len(OPPOSITE), dtype=np.uint32), np.array(OPPOSITE, dtype=np.uint32)
    terms = [_numpy(term) for term in (target, source, torch.stack(powers, dim=1))]
    arrays = (*terms, _unsigned(graph.relation), same, opposite, *map(_numpy, logs))
    return Score._make((*arrays, *rule))


def _factors(factors: EdgeFactors, x: Tensor) -> Factors:
    keep = x.new_empty(0) if factors.keep is None else factors.keep.to(x.dtype)
    return Factors(_numpy(keep), factors.seed, factors.threshold, 1 / (1 - factors.dropout))


def _partial(graph: Adjacency, parameters: AttentionParameters) -> Partial:
    parts, (relations, heads, channels) = len(graph.parts) - 1, parameters.query.shape
    shapes = ((relations, heads, channels), (relations, heads, channels), (relations, 4, heads))
    return Partial(*(_numpy(parameters.query.new_zeros(parts, *shape)) for shape in shapes))


def _parameter_gradients(partial: Partial) -> AttentionParameters:
    # the parts are summed by numpy, whose order does not depend on the number of threads
    query, key, powers = (torch.from_numpy(values.sum(axis=0)) for values in partial)
    bias, source_power, target_power, confidence_power = powers.unbind(1)
    return AttentionParameters(query, key, bias, -source_power, -target_power, confidence_power.sum(dim=0))


class _NeighborSum(torch.autograd.Function):
    """The kernels of a sum with given weights."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(weight, x)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(sum_neighbors, graph, x, _edges(graph), _numpy(weight), _numpy(x), _numpy(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor]:
        weight, x = ctx.saved_tensors
        grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        wanted = grad_weight if ctx.needs_input_grad[1] else grad_weight[:0]
        given = (_numpy(tensor) for tensor in (weight, x, grads[0], wanted, grad_x))
        _run(sum_neighbors_backward, ctx.graph, x, _edges(ctx.graph), *given)
        return None, grad_weight if len(wanted) else None, grad_x


class _EdgeSums(torch.autograd.Function):
    """Two look-ups; their gradients are sums over the edges of a slot, which as sparse products run in parallel."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
        ctx.graph, ctx.shape = graph, target.shape
        out = target.flatten(0, 1).index_select(0, graph.target_slot)
        return out.add_(source.flatten(0, 1).index_select(0, graph.source_slot))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        graph, grad = ctx.graph, grads[0].contiguous()
        in_order = torch.arange(len(grad), dtype=torch.int32, device=grad.device)
        target = _row_sums(graph.target_slots, in_order, grad)
        source = _row_sums(graph.source_slots, graph.reverse, grad)
        return None, target.view(ctx.shape), source.view(ctx.shape)


def _row_sums(row_start: Tensor, edges: Tensor, values: Tensor) -> Tensor:
    """Sum of the ``values`` (E, K) of each row's edges: (rows, K)."""
    size = (len(row_start) - 1, len(values))
    ones = values.new_ones(len(edges))
    return _multiply(torch.sparse_csr_tensor(row_start, edges, ones, size=size, check_invariants=False), values)


class _SparseNeighborSum(torch.autograd.Function):
    """One sparse product a head; the gradient of the weights is a product sampled at the edges (SDDMM)."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(weight, x)
        return _sums(graph, weight, x)

    @staticmethod
    @once_differentiable
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

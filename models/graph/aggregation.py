"""Sums over neighbours with gradients; no tensor of edges x dimensions is ever made, forward or backward.

On the CPU they run in the loops of ``models.kernels.attention``; on other devices, and in half precision, as sparse
matrix products of torch.
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
    ParameterGradients,
    ScoreInputs,
    WeightFactors,
    attend,
    attend_backward,
    attend_backward_targets,
    node_terms,
    sum_neighbors,
    sum_neighbors_backward,
)
from models.kernels.compiled import in_parallel

WORK_PER_THREAD = 2**17
"""Edges x dimensions that are worth one more thread."""


class EdgeFactors(NamedTuple):
    """Factors that multiply the weights of the edges.

    ``keep`` (E,) has the dtype of the weights and gets no gradient; 0 leaves an edge out. ``dropout`` is the
    probability that an edge is left out, drawn for each head by ``seed`` (below 2^32); other edges are scaled up.
    """

    keep: Tensor | None = None
    dropout: float = 0.0
    seed: int = 0

    @property
    def threshold(self) -> int:
        """The smallest 32-bit number that keeps an edge."""
        return round(self.dropout * 2**32)

    def apply(self, weight: Tensor) -> Tensor:
        """Return the weights (E, H) times the factors, as the kernels compute them."""
        if self.keep is not None:
            weight = weight * self.keep[:, None]
        if self.threshold:
            weight = (
                weight * (random_bits(weight.shape, self.seed, weight.device) >= self.threshold) / (1 - self.dropout)
            )
        return weight


def random_bits(shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """Return 32 random bits for each entry, as int64, computed only from the entry's number and the seed.

    So the backward pass can compute the mask again, and kernels and torch drop the same edges. The hash is C. Wellons's
    ``lowbias32``.
    """
    bits = torch.arange(shape.numel(), device=device).bitwise_and_(0xFFFFFFFF).bitwise_xor_(seed)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return (bits ^ (bits >> 16)).view(shape)


class AttentionParameters(NamedTuple):
    """Parameters of a ``DegreeAttention``: query, key (R, H, C), bias, degree powers (R, H), confidence power (H,)."""

    query: Tensor
    key: Tensor
    bias: Tensor
    source_power: Tensor
    target_power: Tensor
    confidence_power: Tensor


class ScoreRule(NamedTuple):
    """Slope of the LeakyReLU on the learned score, and the bounds of the whole score."""

    slope: float
    low: float
    high: float


def has_kernels(x: Tensor) -> bool:
    """Return whether sums over ``x`` run in compiled loops."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def attended_sum(
    graph: Adjacency, x: Tensor, parameters: AttentionParameters, rule: ScoreRule, factors: EdgeFactors
) -> Tensor:
    """Sum each node's neighbours with the weights of ``DegreeAttention``, see ``neighbor_sum``.

    The weights are computed while summing, and again for the gradients. Differentiable once, in ``x`` and the
    parameters. Requires ``has_kernels(x)``.

    Shapes: x (N, H, C) -> (N, H, C).

    Raises:
        ValueError: the length of ``x`` or ``keep`` does not fit the graph.
    """
    _check("x", x, graph.num_nodes)
    if factors.keep is not None:
        _check("keep", factors.keep, len(graph.source))
    out: Tensor = _AttendedSum.apply(graph, rule, factors, x, *parameters)
    return out


def neighbor_sum(graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
    """Sum the vectors of each node's neighbours, with one weight per edge and head.

    ``out[i, h] = sum over edges (j -> i) of weight[edge, h] * x[j, h]``, differentiable in ``weight`` and ``x``.

    Shapes: E edges, N nodes, H heads, C channels per head.
        weight (E, H), x (N, H, C) -> (N, H, C).

    Raises:
        ValueError: the length of ``weight`` or ``x`` does not fit the graph.
    """
    _check("x", x, graph.num_nodes)
    _check("weight", weight, len(graph.source))
    function = _NeighborSum if has_kernels(x) else _SparseNeighborSum
    out: Tensor = function.apply(graph, weight, x)
    return out


def edge_sums(graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
    """Add up, for every edge, the values of its target and of its source in the edge's relation.

    Shapes: N nodes, R relations, K values, E edges. target (N, R, K), source (N, R, K) -> (E, K).
    """
    out: Tensor = _EdgeSums.apply(graph, target, source)
    return out


def _check(name: str, given: Tensor, rows: int) -> None:
    if len(given) != rows:  # a compiled loop would read past the end
        raise ValueError(f"{name} has {len(given)} rows; this graph needs {rows}.")


def _run_kernel(kernel: Callable[..., None], graph: Adjacency, like: Tensor, *arguments: Any) -> None:
    work = len(graph.source) * like[0].numel()
    threads = min(torch.get_num_threads(), 1 + work // WORK_PER_THREAD)
    in_parallel(kernel, threads, len(graph.parts) - 1, *arguments)


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().contiguous().numpy()


def _unsigned(tensor: Tensor) -> npt.NDArray[Any]:
    return _numpy(tensor).view(np.uint32)  # Numba need not check unsigned indices for negative values


def _edges(graph: Adjacency) -> Edges:
    indices = (_unsigned(index) for index in (graph.source, graph.target, graph.reverse))
    return Edges(_numpy(graph.parts), _numpy(graph.row_start), *indices)


class _AttendedSum(torch.autograd.Function):
    """The kernels of the attention; between the passes only the inputs and two terms of (N R, H) are kept."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, rule: ScoreRule, factors: EdgeFactors, x: Tensor, *given: Tensor) -> Tensor:
        parameters, x = AttentionParameters(*given), x.contiguous()
        target = _node_terms(graph, graph.target_slots, x, parameters.query)
        source = _node_terms(graph, graph.source_slots, x, parameters.key)
        ctx.graph, ctx.rule, ctx.factors = graph, rule, factors
        ctx.save_for_backward(x, target, source, *parameters)
        score, out = _score_inputs(graph, rule, target, source, parameters), torch.empty_like(x)
        _run_kernel(attend, graph, x, _edges(graph), score, _weight_factors(factors, x), _numpy(x), _numpy(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, target, source, *given = ctx.saved_tensors
        parameters, graph = AttentionParameters(*given), ctx.graph
        edges, gradients = _edges(graph), _zero_gradients(graph, parameters)
        score = _score_inputs(graph, ctx.rule, target, source, parameters)
        grad_x, grad_learned = torch.empty_like(x), x.new_empty(len(graph.source), x.shape[1])
        given_x, out, learned = _numpy(x), _numpy(grad_x), _numpy(grad_learned)
        key, query, grad = _numpy(parameters.key), _numpy(parameters.query), _numpy(grads[0])
        factors = _weight_factors(ctx.factors, x)
        _run_kernel(attend_backward, graph, x, edges, score, factors, given_x, key, grad, out, learned, gradients)
        _run_kernel(attend_backward_targets, graph, x, edges, score.relation, given_x, query, learned, out, gradients)
        # numpy sums the parts in one order, whatever the number of threads
        query_grad, key_grad, powers_grad = (torch.from_numpy(values.sum(axis=0)) for values in gradients)
        bias, source_power, target_power, confidence_power = powers_grad.unbind(1)
        powers = bias, -source_power, -target_power, confidence_power.sum(dim=0)
        return None, None, None, grad_x, *AttentionParameters(query_grad, key_grad, *powers)


def _node_terms(graph: Adjacency, slots: Tensor, x: Tensor, vectors: Tensor) -> Tensor:
    """Return what each node adds to the learned scores at one end of its edges: (N R, H)."""
    out = x.new_empty(len(x) * len(vectors), x.shape[1])
    _run_kernel(node_terms, graph, x, *map(_numpy, (graph.parts, slots, x, vectors, out)))
    return out


def _score_inputs(
    graph: Adjacency, rule: ScoreRule, target: Tensor, source: Tensor, parameters: AttentionParameters
) -> ScoreInputs:
    confidence_power = parameters.confidence_power.expand_as(parameters.bias)
    powers = (parameters.bias, -parameters.source_power, -parameters.target_power, confidence_power)
    logs = (graph.log_confidence.to(target.dtype), graph.log_degree.to(target.dtype))
    same, opposite = np.arange(len(OPPOSITE), dtype=np.uint32), np.array(OPPOSITE, dtype=np.uint32)
    terms = [_numpy(term) for term in (target, source, torch.stack(powers, dim=1))]
    arrays = (*terms, _unsigned(graph.relation), same, opposite, *map(_numpy, logs))
    return ScoreInputs._make((*arrays, *rule))


def _weight_factors(factors: EdgeFactors, x: Tensor) -> WeightFactors:
    keep = x.new_empty(0) if factors.keep is None else factors.keep.to(x.dtype)
    return WeightFactors(_numpy(keep), factors.seed, factors.threshold, 1 / (1 - factors.dropout))


def _zero_gradients(graph: Adjacency, parameters: AttentionParameters) -> ParameterGradients:
    parts, (relations, heads, channels) = len(graph.parts) - 1, parameters.query.shape
    shapes = ((relations, heads, channels), (relations, heads, channels), (relations, 4, heads))
    return ParameterGradients(*(_numpy(parameters.query.new_zeros(parts, *shape)) for shape in shapes))


class _NeighborSum(torch.autograd.Function):
    """The kernels of a sum with given weights."""

    @staticmethod
    def forward(ctx: Any, graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(weight, x)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run_kernel(sum_neighbors, graph, x, _edges(graph), _numpy(weight), _numpy(x), _numpy(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor]:
        weight, x = ctx.saved_tensors
        grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        wanted = grad_weight if ctx.needs_input_grad[1] else grad_weight[:0]
        given = (_numpy(tensor) for tensor in (weight, x, grads[0], wanted, grad_x))
        _run_kernel(sum_neighbors_backward, ctx.graph, x, _edges(ctx.graph), *given)
        return None, grad_weight if len(wanted) else None, grad_x


class _EdgeSums(torch.autograd.Function):
    """Two look-ups; their gradients are sums over the edges of a slot, computed as parallel sparse products."""

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
    """Sum the ``values`` (E, K) of the edges of each row: (rows, K)."""
    size = (len(row_start) - 1, len(values))
    ones = values.new_ones(len(edges))
    return _multiply(torch.sparse_csr_tensor(row_start, edges, ones, size=size, check_invariants=False), values)


class _SparseNeighborSum(torch.autograd.Function):
    """One sparse product per head; the gradient of the weights is a product sampled at the edges (SDDMM)."""

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
        # the pattern is its own transpose: the transposed matrix has the same rows, with the reverse edges' weights
        grad_x = _sums(graph, weight.index_select(0, graph.reverse), grad) if ctx.needs_input_grad[2] else None
        return None, grad_weight, grad_x


def _sums(graph: Adjacency, weight: Tensor, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for head in range(x.shape[1]):
        out[:, head] = _multiply(graph.matrix(weight[:, head].contiguous()), x[:, head].contiguous())
    return out


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    # on the CPU torch's own kernel is faster than the general product; CUDA has only the general product
    return matrix @ x if x.is_cuda else torch.sparse.mm(matrix, x, "sum")


def _edge_products(graph: Adjacency, target: Tensor, source: Tensor) -> Tensor:
    """Return ``target[i, h] . source[j, h]`` for every edge (j -> i): (E, H)."""
    columns = []
    pattern = graph.matrix(target.new_zeros(len(graph.source)))
    for head in range(target.shape[1]):
        left, right = target[:, head].contiguous(), source[:, head].contiguous()
        columns.append(torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values())
    return torch.stack(columns, dim=1)

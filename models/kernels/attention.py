"""Loops of graph attention over edges on the CPU; Numba compiles them, see ``models.kernels.compiled``.

Edges are sorted by target, so a range of rows (nodes) is a range of edges. Each row is written by the one thread that
owns it, in the order of the edges: the bits do not depend on the number of threads.

Letters in shapes: N nodes, E edges, R relations, H heads, C channels per head, P parts, B edges of a block.
"""

from __future__ import annotations

from math import factorial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from models.kernels.compiled import inner, kernel

Array = npt.NDArray[Any]

BLOCK = 256
"""Edges whose weights are computed together; their buffers stay in the first-level cache."""

TAYLOR = tuple(1 / factorial(n) for n in range(9, -1, -1))
"""Coefficients of the exponential series, the highest power first."""

PREFETCH_AHEAD = 16
"""A row is prefetched this many edges before it is read: the processor cannot guess which row comes next."""

CACHE_LINE = 64
"""Bytes of a cache line."""


class Edges(NamedTuple):
    """The edges of a graph, as in ``Adjacency``.

    parts (P + 1,) int64 and row_start (N + 1,) int32. source, target, reverse (E,) uint32: unsigned, because Numba
    checks signed indices for negative values.
    """

    parts: Array
    row_start: Array
    source: Array
    target: Array
    reverse: Array


class ScoreInputs(NamedTuple):
    """All that the weight of an edge is computed from.

    target, source (N R, H): what each end adds to the learned score. powers (R, 4, H): the bias, and the exponents of
    the source's degree, the target's degree and the confidence. relation (E,). same, opposite (R,): the relation of an
    edge, and that of its reverse. log_confidence (E,), equal on an edge and its reverse. log_degree (N,). slope: of
    the LeakyReLU. low, high: bounds of the score.
    """

    target: Array
    source: Array
    powers: Array
    relation: Array
    same: Array
    opposite: Array
    log_confidence: Array
    log_degree: Array
    slope: float
    low: float
    high: float


class WeightFactors(NamedTuple):
    """Factors of the weights: ``keep`` (E,), or (0,) for none, and dropout with probability ``threshold / 2^32``."""

    keep: Array
    seed: int
    threshold: int
    scale: float


class ParameterGradients(NamedTuple):
    """Gradients of the parameters, one entry per part: query, key (P, R, H, C), powers (P, R, 4, H)."""

    query: Array
    key: Array
    powers: Array


def _prefetch_code(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Prefetch the cache line that is ``column`` entries from the start of ``array[row]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, byte, word = signature.args[0], ir.IntType(8).as_pointer(), ir.IntType(32)
        first, last = map(context.cast, [builder] * 2, arguments[1:], signature.args[1:], [types.intp] * 2)
        indices = [first, *[first.type(0)] * (kind.ndim - 2), last]
        data = context.make_array(kind)(context, builder, arguments[0])
        place = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, data, indices), byte)
        ask = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, ask, "llvm.prefetch.p0")
        builder.call(function, [place, word(0), word(3), word(1)])  # for reading, into all caches, data
        return context.get_dummy_value()

    return types.void(array, row, column), generate


_prefetch: Any = intrinsic(_prefetch_code)


@kernel
def node_terms(first: int, last: int, parts: Array, slots: Array, x: Array, vectors: Array, out: Array) -> None:
    """Write ``vectors[r] . x[i]``, which node i adds to the learned scores of its edges of relation r: (N R, H).

    A slot without edges, as ``slots`` (N R + 1,) says, is not written.
    """
    relations, heads, channels = vectors.shape
    for i in range(parts[first], parts[last]):
        for r in range(relations):
            slot = i * relations + r
            if slots[slot] < slots[slot + 1]:
                for h in range(heads):
                    total = x.dtype.type(0)
                    for c in range(channels):
                        total += x[i, h, c] * vectors[r, h, c]
                    out[slot, h] = total


@kernel
def attend(
    first: int, last: int, edges: Edges, score: ScoreInputs, factors: WeightFactors, x: Array, out: Array
) -> None:
    """Write ``out[i, h] = sum over edges (j -> i) of weight[h] * x[j, h]``, computing the weights: (N, H, C)."""
    edge, relation, logs, buffers = _buffers(x)
    out[edges.parts[first] : edges.parts[last]] = 0
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        # each part starts a new block, so that blocks do not depend on the thread
        for start in range(edges.row_start[edges.parts[part]], end, BLOCK):
            stop = min(start + BLOCK, end)
            for k in range(stop - start):
                edge[k] = start + k
            present = _gather_terms(start, stop, edges.target, edges.source, score.same, score, relation, logs, buffers)
            _compute_weights(present, relation[: stop - start], logs, score, buffers)
            _apply_factors(edge[: stop - start], factors, buffers[1])
            _sum_rows(start, stop, edges.source, edges.target, buffers[1], x, out)


@kernel
def attend_backward(
    first: int,
    last: int,
    edges: Edges,
    score: ScoreInputs,
    factors: WeightFactors,
    x: Array,
    key: Array,
    grad: Array,
    grad_x: Array,
    grad_learned: Array,
    gradients: ParameterGradients,
) -> None:
    """Compute the gradients by the rows of the sources: one read of a vector of ``grad`` per edge gives all of them.

    At row i, edge p from j stands for its reverse, from i to j. Writes ``grad_x`` (N, H, C) without the part that comes
    through the targets' scores, the gradients of key and powers, and ``grad_learned`` (E, H): the gradient of the
    learned score of the reverse of p, at p.
    """
    edge, relation, logs, buffers = _buffers(x)
    sums = np.zeros(x.shape[1], x.dtype)
    grad_x[edges.parts[first] : edges.parts[last]] = 0
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        for start in range(edges.row_start[edges.parts[part]], end, BLOCK):
            stop = min(start + BLOCK, end)
            for k in range(stop - start):
                edge[k] = edges.reverse[start + k]
            present = _gather_terms(
                start, stop, edges.source, edges.target, score.opposite, score, relation, logs, buffers
            )
            _compute_weights(present, relation[: stop - start], logs, score, buffers)
            _apply_factors(edge[: stop - start], factors, buffers[1])
            _sum_rows_and_dot(start, stop, edges.source, edges.target, buffers[1], grad, x, grad_x, buffers[2])
            _score_gradients(stop - start, buffers)
            _add_powers(present, relation[: stop - start], logs, buffers[2], gradients.powers[part])
            for k in range(stop - start):
                p = start + k
                for h in range(len(sums)):
                    grad_learned[p, h] = buffers[0, h, k]
                    sums[h] += buffers[0, h, k]
                if p + 1 == end or _is_last_of_slot(edges.target, score.relation, p):
                    _add_slot_gradients(sums, edges.target[p], relation[k], x, key, grad_x, gradients.key[part])


@kernel
def attend_backward_targets(
    first: int,
    last: int,
    edges: Edges,
    relation: Array,
    x: Array,
    query: Array,
    grad_learned: Array,
    grad_x: Array,
    gradients: ParameterGradients,
) -> None:
    """Add to ``grad_x`` the part that comes through the targets' scores, and write the gradient of ``query``."""
    reverse, target = edges.reverse, edges.target
    sums = np.zeros(x.shape[1], x.dtype)
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        for e in range(edges.row_start[edges.parts[part]], end):
            _prefetch(grad_learned, reverse[min(e + PREFETCH_AHEAD, len(reverse) - 1)], 0)
            for h in range(len(sums)):
                sums[h] += grad_learned[reverse[e], h]
            if e + 1 == end or _is_last_of_slot(target, relation, e):
                _add_slot_gradients(sums, target[e], relation[e], x, query, grad_x, gradients.query[part])


@kernel
def sum_neighbors(first: int, last: int, edges: Edges, weight: Array, x: Array, out: Array) -> None:
    """Write ``out[i, h] = sum over edges (j -> i) of weight[e, h] * x[j, h]``: (N, H, C)."""
    buffer = np.empty((x.shape[1], BLOCK), x.dtype)
    out[edges.parts[first] : edges.parts[last]] = 0
    end = edges.row_start[edges.parts[last]]
    for start in range(edges.row_start[edges.parts[first]], end, BLOCK):
        stop = min(start + BLOCK, end)
        for k in range(stop - start):
            for h in range(len(buffer)):
                buffer[h, k] = weight[start + k, h]
        _sum_rows(start, stop, edges.source, edges.target, buffer, x, out)


@kernel
def sum_neighbors_backward(
    first: int, last: int, edges: Edges, weight: Array, x: Array, grad: Array, grad_weight: Array, grad_x: Array
) -> None:
    """Compute the gradients of ``sum_neighbors``; ``grad_weight`` is (E, H), or (0, H) if it is not needed."""
    buffers, reverse = np.empty((2, x.shape[1], BLOCK), x.dtype), edges.reverse
    factor, product = buffers[0], buffers[1]
    grad_x[edges.parts[first] : edges.parts[last]] = 0
    end = edges.row_start[edges.parts[last]]
    for start in range(edges.row_start[edges.parts[first]], end, BLOCK):
        stop = min(start + BLOCK, end)
        for k in range(stop - start):
            for h in range(len(factor)):
                factor[h, k] = weight[reverse[start + k], h]
        if len(grad_weight) == 0:
            _sum_rows(start, stop, edges.source, edges.target, factor, grad, grad_x)
            continue
        _sum_rows_and_dot(start, stop, edges.source, edges.target, factor, grad, x, grad_x, product)
        for k in range(stop - start):
            for h in range(len(product)):
                grad_weight[reverse[start + k], h] = product[h, k]


# The functions below work on a block of edges: a call or a view for each edge would cost more than the work itself.
# Edges are the last dimension of the buffers, so that loops over them are vectorised for any number of heads.


@inner
def _buffers(x: Array) -> tuple[Array, Array, Array, Array]:
    """Return buffers for a block: edges and relations (B,); logarithms (3, B); slopes, weights, products (3, H, B)."""
    whole, real = (3, x.shape[1], BLOCK), x.dtype
    return np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int32), np.empty((3, BLOCK), real), np.empty(whole, real)


@inner
def _gather_terms(
    start: int,
    stop: int,
    target: Array,
    source: Array,
    map_to: Array,
    score: ScoreInputs,
    relation: Array,
    logs: Array,
    buffers: Array,
) -> int:
    """Gather what both ends of each edge add to the scores of a block.

    ``map_to`` (R,) is the relation that each relation stands for. Returns the relations of the block, one bit each.
    """
    of_target, of_source, learned = score.target, score.source, buffers[0]
    at_most, present = len(source) - 1, 0
    for e in range(start, stop):
        later = min(e + PREFETCH_AHEAD, at_most)
        _prefetch(of_source, source[later] * len(map_to) + map_to[score.relation[later]], 0)
        k, r, i, j = e - start, map_to[score.relation[e]], target[e], source[e]
        relation[k] = r
        present |= 1 << r
        logs[0, k] = score.log_degree[j]
        logs[1, k] = score.log_degree[i]
        logs[2, k] = score.log_confidence[e]
        i, j = i * len(map_to) + r, j * len(map_to) + r
        for h in range(len(learned)):
            learned[h, k] = of_target[i, h] + of_source[j, h]
    return present


@inner
def _compute_weights(present: int, relation: Array, logs: Array, score: ScoreInputs, buffers: Array) -> None:
    """Replace the learned scores of a block by slopes and weights; the slope is 0 outside of the bounds."""
    real = buffers.dtype.type
    one, zero, slope, low, high = real(1), real(0), real(score.slope), real(score.low), real(score.high)
    powers = score.powers
    for h in range(buffers.shape[1]):
        slopes, weight = buffers[0, h], buffers[1, h]
        for r in range(len(powers)):
            if not present >> r & 1:
                continue
            bias, source, target, confidence = powers[r, 0, h], powers[r, 1, h], powers[r, 2, h], powers[r, 3, h]
            for k in range(len(relation)):
                fixed = bias + source * logs[0, k] + target * logs[1, k] + confidence * logs[2, k]
                weight[k] = fixed if relation[k] == r else weight[k]
        for k in range(len(relation)):
            leaky = one if slopes[k] > zero else slope
            value = slopes[k] * leaky + weight[k]
            slopes[k] = leaky if low <= value <= high else zero
            weight[k] = _bounded_exp(min(max(value, low), high))


@inner
def _bounded_exp(x: float) -> float:
    """Return exp(x) for x from -12 to 2, with an error near 1e-14; unlike ``math.exp`` it can be vectorised."""
    y, series = np.float64(x) * 0.015625, 1 / 3628800
    for coefficient in TAYLOR:
        series = series * y + coefficient
    for _ in range(6):
        series *= series
    return series


@inner
def _apply_factors(edge: Array, factors: WeightFactors, weight: Array) -> None:
    """Multiply the weights of the edges (B,) by their factors; the hash is ``models.graph.aggregation.random_bits``."""
    heads, scale, zero = len(weight), weight.dtype.type(factors.scale), weight.dtype.type(0)
    seed, threshold = np.uint32(factors.seed), factors.threshold
    if len(factors.keep):
        for h in range(heads):
            for k in range(len(edge)):
                weight[h, k] *= factors.keep[edge[k]]
    if threshold:
        for h in range(heads):
            for k in range(len(edge)):
                bits = np.uint32(edge[k] * heads + h) ^ seed
                bits = np.uint32((bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D))
                bits = np.uint32((bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B))
                bits = np.uint32(bits ^ (bits >> np.uint32(16)))
                weight[h, k] *= scale if bits >= threshold else zero


@inner
def _prefetch_row(x: Array, row: int) -> None:
    for column in range(0, x.shape[1] * x.shape[2], CACHE_LINE // x.itemsize):
        _prefetch(x, row, column)


@inner
def _sum_rows(start: int, stop: int, source: Array, target: Array, weight: Array, x: Array, out: Array) -> None:
    heads, channels = x.shape[1:]
    for e in range(start, stop):
        _prefetch_row(x, source[min(e + PREFETCH_AHEAD, len(source) - 1)])
        xj, oi = x[source[e]], out[target[e]]
        for h in range(heads):
            a = weight[h, e - start]
            for c in range(channels):
                oi[h, c] += a * xj[h, c]


@inner
def _sum_rows_and_dot(
    start: int,
    stop: int,
    source: Array,
    target: Array,
    weight: Array,
    grad: Array,
    x: Array,
    out: Array,
    product: Array,
) -> None:
    """Do what ``_sum_rows`` does with ``grad``; write the products of its rows with those of ``x`` as well."""
    heads, channels = grad.shape[1:]
    for e in range(start, stop):
        _prefetch_row(grad, source[min(e + PREFETCH_AHEAD, len(source) - 1)])
        gj, xi, oi = grad[source[e]], x[target[e]], out[target[e]]
        for h in range(heads):
            a, total = weight[h, e - start], grad.dtype.type(0)
            for c in range(channels):
                total += gj[h, c] * xi[h, c]
                oi[h, c] += a * gj[h, c]
            product[h, e - start] = total


@inner
def _score_gradients(edges: int, buffers: Array) -> None:
    """Replace the slopes by the gradients of the learned scores, and the products by those of the whole scores."""
    zero = buffers.dtype.type(0)
    for h in range(buffers.shape[1]):
        slopes, weight, product = buffers[0, h], buffers[1, h], buffers[2, h]
        for k in range(edges):
            gradient = weight[k] * product[k] if slopes[k] > zero else zero
            product[k] = gradient
            slopes[k] *= gradient


@inner
def _add_powers(present: int, relation: Array, logs: Array, gradients: Array, powers: Array) -> None:
    zero = gradients.dtype.type(0)
    for h in range(len(gradients)):
        for r in range(len(powers)):
            if not present >> r & 1:
                continue
            bias = source = target = confidence = zero
            for k in range(len(relation)):
                gradient = gradients[h, k] if relation[k] == r else zero
                bias += gradient
                source += gradient * logs[0, k]
                target += gradient * logs[1, k]
                confidence += gradient * logs[2, k]
            powers[r, 0, h] += bias
            powers[r, 1, h] += source
            powers[r, 2, h] += target
            powers[r, 3, h] += confidence


@inner
def _is_last_of_slot(row: Array, relation: Array, edge: int) -> bool:
    """Return whether the next edge belongs to another row or relation."""
    return row[edge + 1] != row[edge] or relation[edge + 1] != relation[edge]


@inner
def _add_slot_gradients(
    total: Array, row: int, r: int, x: Array, vectors: Array, grad_x: Array, grad_vectors: Array
) -> None:
    """Add the gradients of x and vectors, given that ``total`` (H,) is that of ``vectors[r] . x[row]``; reset it."""
    for h in range(len(total)):
        for c in range(x.shape[2]):
            grad_x[row, h, c] += total[h] * vectors[r, h, c]
        for c in range(x.shape[2]):
            grad_vectors[r, h, c] += total[h] * x[row, h, c]
        total[h] = 0

"""Loops over the edges of a graph on the CPU, compiled by Numba; see ``models.kernels.compiled``.

Edges are sorted by target, so a range of rows is a range of edges. Every array that a kernel writes by row is written
by the one thread that owns the row, in the order of the edges: the same bits at any number of threads.

Letters in shapes: N nodes, E edges, R relations, H heads, C channels a head, P parts, B edges of a block.
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
"""Edges whose weights are computed together, in buffers that stay in the first-level cache."""

TAYLOR = tuple(1 / factorial(n) for n in range(9, -1, -1))
"""Coefficients of the exponential series, the highest power first."""

AHEAD = 16
"""A row is asked for so many edges before it is read: the processor cannot guess which comes next."""

LINE = 64
"""Bytes that memory gives at once."""


class Edges(NamedTuple):
    """The edges of a graph, as in ``Adjacency``; unsigned indices, since one that may be negative costs a comparison.

    parts (P + 1,) int64 and row_start (N + 1,) int32. source, target, reverse (E,) uint32.
    """

    parts: Array
    row_start: Array
    source: Array
    target: Array
    reverse: Array


class Score(NamedTuple):
    """What the weight of an edge is computed from.

    target, source (N R, H): what either end brings to the learned score. powers (R, 4, H): of 1 (the bias), of the
    degrees of source and target, and of the confidence. relation (E,). same, opposite (R,): relation of an edge and of
    its reverse. log_confidence (E,), the same on both. log_degree (N,). slope: of the LeakyReLU. low, high: bounds.
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


class Factors(NamedTuple):
    """What multiplies a weight: ``keep`` (E,) or (0,), and a dropout of chance ``threshold / 2^32``."""

    keep: Array
    seed: int
    threshold: int
    scale: float


class Partial(NamedTuple):
    """Gradients of parameters, an entry a part: query, key (P, R, H, C), and powers (P, R, 4, H) as in ``Score``."""

    query: Array
    key: Array
    powers: Array


def _prefetch_code(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line ``column`` entries from the start of ``array[row]``, and go on without it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, byte, word = signature.args[0], ir.IntType(8).as_pointer(), ir.IntType(32)
        first, last = map(context.cast, [builder] * 2, arguments[1:], signature.args[1:], [types.intp] * 2)
        indices = [first, *[first.type(0)] * (kind.ndim - 2), last]
        data = context.make_array(kind)(context, builder, arguments[0])
        place = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, data, indices), byte)
        ask = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, ask, "llvm.prefetch.p0")
        builder.call(function, [place, word(0), word(3), word(1)])  # to read, in all caches, data
        return context.get_dummy_value()

    return types.void(array, row, column), generate


_prefetch: Any = intrinsic(_prefetch_code)


@kernel
def node_terms(first: int, last: int, parts: Array, slots: Array, x: Array, vectors: Array, out: Array) -> None:
    """What a node brings to the learned scores of its edges of each relation, ``vectors[r] . x[i]``: (N R, H).

    Only where ``slots`` (N R + 1,) says that there is an edge; the rest of ``out`` is left as it is.
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
def attend(first: int, last: int, edges: Edges, score: Score, factors: Factors, x: Array, out: Array) -> None:
    """``out[i, h] = sum over edges (j -> i) of weight[h] * x[j, h]``, the weights computed on the way: (N, H, C)."""
    number, relation, logs, buffers = _buffers(x)
    out[edges.parts[first] : edges.parts[last]] = 0
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        # blocks start anew with each part, so that they are the same whichever thread has it
        for start in range(edges.row_start[edges.parts[part]], end, BLOCK):
            stop = min(start + BLOCK, end)
            for k in range(stop - start):
                number[k] = start + k
            there = _add_terms(start, stop, edges.target, edges.source, score.same, score, relation, logs, buffers)
            _weigh(there, relation[: stop - start], logs, score, buffers)
            _thin(number[: stop - start], factors, buffers[1])
            _sum(start, stop, edges.source, edges.target, buffers[1], x, out)


@kernel
def attend_backward(
    first: int,
    last: int,
    edges: Edges,
    score: Score,
    factors: Factors,
    x: Array,
    key: Array,
    grad: Array,
    grad_x: Array,
    grad_learned: Array,
    partial: Partial,
) -> None:
    """Gradients by the rows of the sources: each vector of ``grad`` is read once an edge and gives all of them.

    At row i, the edge p from j is taken for its reverse, from i to j. Writes the part of ``grad_x`` (N, H, C) that does
    not come through the targets' scores, ``partial``, and ``grad_learned`` (E, H), at p the gradient of the reverse.
    """
    number, relation, logs, buffers = _buffers(x)
    sums = np.zeros(x.shape[1], x.dtype)
    grad_x[edges.parts[first] : edges.parts[last]] = 0
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        for start in range(edges.row_start[edges.parts[part]], end, BLOCK):
            stop = min(start + BLOCK, end)
            for k in range(stop - start):
                number[k] = edges.reverse[start + k]
            there = _add_terms(start, stop, edges.source, edges.target, score.opposite, score, relation, logs, buffers)
            _weigh(there, relation[: stop - start], logs, score, buffers)
            _thin(number[: stop - start], factors, buffers[1])
            _sum_and_dot(start, stop, edges.source, edges.target, buffers[1], grad, x, grad_x, buffers[2])
            _score_gradients(stop - start, buffers)
            _add_powers(there, relation[: stop - start], logs, buffers[2], partial.powers[part])
            for k in range(stop - start):
                p = start + k
                for h in range(len(sums)):
                    grad_learned[p, h] = buffers[0, h, k]
                    sums[h] += buffers[0, h, k]
                if p + 1 == end or _turns(edges.target, score.relation, p):
                    _finish(sums, edges.target[p], relation[k], x, key, grad_x, partial.key[part])


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
    partial: Partial,
) -> None:
    """Adds to ``grad_x`` what comes through the targets' scores, and writes the gradient of ``query``."""
    reverse, target = edges.reverse, edges.target
    sums = np.zeros(x.shape[1], x.dtype)
    for part in range(first, last):
        end = edges.row_start[edges.parts[part + 1]]
        for e in range(edges.row_start[edges.parts[part]], end):
            _prefetch(grad_learned, reverse[min(e + AHEAD, len(reverse) - 1)], 0)
            for h in range(len(sums)):
                sums[h] += grad_learned[reverse[e], h]
            if e + 1 == end or _turns(target, relation, e):
                _finish(sums, target[e], relation[e], x, query, grad_x, partial.query[part])


@kernel
def sum_neighbors(first: int, last: int, edges: Edges, weight: Array, x: Array, out: Array) -> None:
    """``out[i, h] = sum over edges (j -> i) of weight[e, h] * x[j, h]``: (N, H, C)."""
    buffer = np.empty((x.shape[1], BLOCK), x.dtype)
    out[edges.parts[first] : edges.parts[last]] = 0
    end = edges.row_start[edges.parts[last]]
    for start in range(edges.row_start[edges.parts[first]], end, BLOCK):
        stop = min(start + BLOCK, end)
        for k in range(stop - start):
            for h in range(len(buffer)):
                buffer[h, k] = weight[start + k, h]
        _sum(start, stop, edges.source, edges.target, buffer, x, out)


@kernel
def sum_neighbors_backward(
    first: int, last: int, edges: Edges, weight: Array, x: Array, grad: Array, grad_weight: Array, grad_x: Array
) -> None:
    """Gradients of ``sum_neighbors`` by the rows of the sources; ``grad_weight`` (E, H), or (0, H) where not needed."""
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
            _sum(start, stop, edges.source, edges.target, factor, grad, grad_x)
            continue
        _sum_and_dot(start, stop, edges.source, edges.target, factor, grad, x, grad_x, product)
        for k in range(stop - start):
            for h in range(len(product)):
                grad_weight[reverse[start + k], h] = product[h, k]


# What follows works on a block of edges: a call, or a view of a row, for every edge costs more than the work itself.
# Edges come last in the buffers, so that the loops over them are vectorised whatever the number of heads.


@inner
def _buffers(x: Array) -> tuple[Array, Array, Array, Array]:
    """For the edges of a block: numbers, relations (B,); logarithms (3, B); slopes, weights and products (3, H, B)."""
    whole, real = (3, x.shape[1], BLOCK), x.dtype
    return np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int32), np.empty((3, BLOCK), real), np.empty(whole, real)


@inner
def _add_terms(
    start: int,
    stop: int,
    target: Array,
    source: Array,
    name: Array,
    score: Score,
    relation: Array,
    logs: Array,
    buffers: Array,
) -> int:
    """What both ends bring to the scores of a block; ``name`` (R,) renames the relations. Returns a bit for each."""
    of_target, of_source, learned = score.target, score.source, buffers[0]
    at_most, there = len(source) - 1, 0
    for e in range(start, stop):
        later = min(e + AHEAD, at_most)
        _prefetch(of_source, source[later] * len(name) + name[score.relation[later]], 0)
        k, r, i, j = e - start, name[score.relation[e]], target[e], source[e]
        relation[k] = r
        there |= 1 << r
        logs[0, k] = score.log_degree[j]
        logs[1, k] = score.log_degree[i]
        logs[2, k] = score.log_confidence[e]
        i, j = i * len(name) + r, j * len(name) + r
        for h in range(len(learned)):
            learned[h, k] = of_target[i, h] + of_source[j, h]
    return there


@inner
def _weigh(there: int, relation: Array, logs: Array, score: Score, buffers: Array) -> None:
    """Slopes and weights of a block from the learned part of its scores; the slope is 0 outside of the bounds."""
    real = buffers.dtype.type
    one, zero, slope, low, high = real(1), real(0), real(score.slope), real(score.low), real(score.high)
    powers = score.powers
    for h in range(buffers.shape[1]):
        lean, weight = buffers[0, h], buffers[1, h]
        for r in range(len(powers)):
            if not there >> r & 1:
                continue
            bias, source, target, confidence = powers[r, 0, h], powers[r, 1, h], powers[r, 2, h], powers[r, 3, h]
            for k in range(len(relation)):
                fixed = bias + source * logs[0, k] + target * logs[1, k] + confidence * logs[2, k]
                weight[k] = fixed if relation[k] == r else weight[k]
        for k in range(len(relation)):
            leaky = one if lean[k] > zero else slope
            value = lean[k] * leaky + weight[k]
            lean[k] = leaky if low <= value <= high else zero
            weight[k] = _exp(min(max(value, low), high))


@inner
def _exp(x: float) -> float:
    """The exponential function between -12 and 2 to some 1e-14, from what a loop can be vectorised with."""
    y, series = np.float64(x) * 0.015625, 1 / 3628800
    for coefficient in TAYLOR:
        series = series * y + coefficient
    for _ in range(6):
        series *= series
    return series


@inner
def _thin(number: Array, factors: Factors, weight: Array) -> None:
    """Multiply the weights of the edges ``number`` (B,) by what else there is; the bits are ``neighbors.drawn``'s."""
    heads, scale, zero = len(weight), weight.dtype.type(factors.scale), weight.dtype.type(0)
    seed, threshold = np.uint32(factors.seed), factors.threshold
    if len(factors.keep):
        for h in range(heads):
            for k in range(len(number)):
                weight[h, k] *= factors.keep[number[k]]
    if threshold:
        for h in range(heads):
            for k in range(len(number)):
                bits = np.uint32(number[k] * heads + h) ^ seed
                bits = np.uint32((bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D))
                bits = np.uint32((bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B))
                bits = np.uint32(bits ^ (bits >> np.uint32(16)))
                weight[h, k] *= scale if bits >= threshold else zero


@inner
def _prefetch_row(x: Array, row: int) -> None:
    for column in range(0, x.shape[1] * x.shape[2], LINE // x.itemsize):
        _prefetch(x, row, column)


@inner
def _sum(start: int, stop: int, source: Array, target: Array, weight: Array, x: Array, out: Array) -> None:
    heads, channels = x.shape[1:]
    for e in range(start, stop):
        _prefetch_row(x, source[min(e + AHEAD, len(source) - 1)])
        xj, oi = x[source[e]], out[target[e]]
        for h in range(heads):
            a = weight[h, e - start]
            for c in range(channels):
                oi[h, c] += a * xj[h, c]


@inner
def _sum_and_dot(
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
    """``_sum`` of the rows of ``grad``, and their products with those of ``x``, while they are at hand."""
    heads, channels = grad.shape[1:]
    for e in range(start, stop):
        _prefetch_row(grad, source[min(e + AHEAD, len(source) - 1)])
        gj, xi, oi = grad[source[e]], x[target[e]], out[target[e]]
        for h in range(heads):
            a, total = weight[h, e - start], grad.dtype.type(0)
            for c in range(channels):
                total += gj[h, c] * xi[h, c]
                oi[h, c] += a * gj[h, c]
            product[h, e - start] = total


@inner
def _score_gradients(edges: int, buffers: Array) -> None:
    """From slopes, weights and products to the gradients of the learned scores and, third, of the scores."""
    zero = buffers.dtype.type(0)
    for h in range(buffers.shape[1]):
        lean, weight, product = buffers[0, h], buffers[1, h], buffers[2, h]
        for k in range(edges):
            gradient = weight[k] * product[k] if lean[k] > zero else zero
            product[k] = gradient
            lean[k] *= gradient


@inner
def _add_powers(there: int, relation: Array, logs: Array, gradients: Array, powers: Array) -> None:
    zero = gradients.dtype.type(0)
    for h in range(len(gradients)):
        for r in range(len(powers)):
            if not there >> r & 1:
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
def _turns(row: Array, relation: Array, edge: int) -> bool:
    """Whether the next edge is of another row or relation."""
    return row[edge + 1] != row[edge] or relation[edge + 1] != relation[edge]


@inner
def _finish(total: Array, row: int, r: int, x: Array, vectors: Array, grad_x: Array, grad_vectors: Array) -> None:
    """The scores ``vectors[r] . x[row]`` have the gradients ``total`` (H,), which is emptied."""
    for h in range(len(total)):
        for c in range(x.shape[2]):
            grad_x[row, h, c] += total[h] * vectors[r, h, c]
        for c in range(x.shape[2]):
            grad_vectors[r, h, c] += total[h] * x[row, h, c]
        total[h] = 0

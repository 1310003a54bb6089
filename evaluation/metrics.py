"""Metrics of ranked lists, one number a user (the metric contract, version 1).

Let T be the user's first k songs and R the user's relevant songs (not empty). Only users with a relevant song have a
row, and each counts the same in an average. What is relevant, and what was hidden, is the caller's to decide and state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data.errors import InputError

METRIC_VERSION = 1
"""Raised when any definition in this module changes; numbers of different versions are never compared."""


def ranking_metrics(items: Tensor, relevant: Tensor, k: int) -> dict[str, Tensor]:
    """All metrics at k.

    Args:
        items: (N, m) int64 songs, best first, m at least k; -1 is an empty place.
        relevant: (2, R) row of ``items`` and song; a pair that is there twice counts once.
        k: how many places count.

    Returns:
        name to (N,) float64.

    Raises:
        InputError: a row has no relevant song, or the lists are shorter than k.
    """
    hits, sizes = hits_and_sizes(items, relevant, k)
    return {
        "recall": recall(hits, sizes),
        "ndcg": ndcg(hits, sizes),
        "precision": precision(hits),
        "mrr": reciprocal_rank(hits),
        "hit_rate": hit_rate(hits),
    }


def hits_and_sizes(items: Tensor, relevant: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Which of the first k places are relevant (N, k) bool, and how many relevant songs each row has (N,) float64."""
    if items.shape[1] < k:
        raise InputError(
            f"The metrics are asked at k = {k}, but the lists have {items.shape[1]} places; rank more songs."
        )
    top = items[:, :k]
    width = int(max(items.max() if items.numel() else 0, relevant[1].max() if relevant.numel() else 0)) + 1
    pairs = torch.unique(relevant[0] * width + relevant[1])  # sorted
    sizes = torch.bincount(pairs // width, minlength=len(items)).double()
    if not bool((sizes > 0).all()):
        raise InputError(
            f"Row {int(torch.argmin(sizes))} has no relevant song, so its recall has no denominator; leave it out."
        )
    return _contained(torch.arange(len(items))[:, None] * width + top, pairs) & (top >= 0), sizes


def recall(hits: Tensor, sizes: Tensor) -> Tensor:
    """|T and R| / |R|. Denominator: all relevant songs, not min(k, |R|); so a user with more than k cannot reach 1.

    Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), 8.3.
    """
    return hits.sum(dim=1).double() / sizes


def precision(hits: Tensor) -> Tensor:
    """|T and R| / k. Denominator: k, also where fewer than k songs could be listed. Manning et al. (2008), 8.4."""
    return hits.double().mean(dim=1)


def hit_rate(hits: Tensor) -> Tensor:
    """1 if any of T is relevant, else 0. Denominator (of the average): users with a relevant song.

    Deshpande and Karypis, "Item-based top-N recommendation algorithms" (2004), 5.1.
    """
    return hits.any(dim=1).double()


def reciprocal_rank(hits: Tensor) -> Tensor:
    """1 / rank of the first relevant song in T, 0 if there is none; its average is the mean reciprocal rank (MRR).

    Denominator: the rank, counted from 1. Voorhees, "The TREC-8 question answering track report" (1999).
    """
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64)
    return (hits / ranks).amax(dim=1)


def ndcg(hits: Tensor, sizes: Tensor) -> Tensor:
    """DCG / ideal DCG with gain 1 for a relevant song and discount 1 / log2(rank + 1).

    Denominator: the DCG of min(k, |R|) relevant songs in the first places (the ideal list, cut at k). Järvelin and
    Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    discount = 1 / torch.log2(torch.arange(2, hits.shape[1] + 2, dtype=torch.float64))
    ideal = torch.cumsum(discount, dim=0)[sizes.long().clamp(max=hits.shape[1]) - 1]
    return (hits * discount).sum(dim=1) / ideal


def _contained(keys: Tensor, ordered: Tensor) -> Tensor:
    place = torch.searchsorted(ordered, keys.contiguous()).clamp(max=len(ordered) - 1)
    return ordered[place] == keys

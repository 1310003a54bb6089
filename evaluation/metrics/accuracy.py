"""Accuracy metrics of ranked lists, one number per user (the metric contract, version 1).

Let T be the user's first k songs and R the user's relevant songs (not empty). Only users with a relevant song have a
row, and each counts the same in an average. The caller decides which songs are relevant and which are hidden.

Every formula takes ``hits`` (N, m) bool, True where a place holds a relevant song, m at least k; ``sizes`` (N,)
float64, |R|; and k. It returns (N,) float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from data.config import unknown_name
from data.errors import InputError

METRIC_VERSION = 1
"""Increase it when any definition in this module changes; numbers of different versions are never compared."""

Formula = Callable[[Tensor, Tensor, int], Tensor]


def ranking_metrics(items: Tensor, relevant: Tensor, k: int) -> dict[str, Tensor]:
    """Compute all metrics of the contract at k.

    Args:
        items: (N, m) int64 songs, best first, m at least k; -1 is an empty place.
        relevant: (2, R) row of ``items`` and song; a repeated pair counts once.
        k: how many places count.

    Returns:
        name to (N,) float64.

    Raises:
        InputError: a row has no relevant song, or the lists are shorter than k.
    """
    hits, sizes = hits_and_sizes(items, relevant, k)
    return {name: formula(hits, sizes, k) for name, formula in METRICS.items()}


def conventional_metrics(items: Tensor, relevant: Tensor, ks: Sequence[int], convention: str) -> dict[str, Tensor]:
    """Compute the metrics as another convention defines them, to compare with the tables of papers.

    Args:
        items, relevant: as in ``ranking_metrics``.
        ks: every list length of the table; ``kgat`` normalises by the hits in the longest list.
        convention: a name in ``CONVENTIONS``.

    Returns:
        names such as "recall@20" to (N,) float64.

    Raises:
        InputError: the convention is unknown, or an error of ``ranking_metrics``.
    """
    if convention not in CONVENTIONS:
        raise InputError(unknown_name("There is no metric convention", convention, CONVENTIONS))
    hits, sizes = hits_and_sizes(items, relevant, max(ks))
    formulas = CONVENTIONS[convention].items()
    return {f"{name}@{k}": formula(hits, sizes, k) for k in ks for name, formula in formulas}


def hits_and_sizes(items: Tensor, relevant: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return which of the first k places are relevant (N, k) bool, and the number of relevant songs (N,) float64."""
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
    listed = torch.arange(len(items))[:, None] * width + top  # (N, k)
    place = torch.searchsorted(pairs, listed.contiguous()).clamp(max=len(pairs) - 1)
    return (pairs[place] == listed) & (top >= 0), sizes


def recall(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """|T and R| / |R|. Denominator: all relevant songs, not min(k, |R|): a user with more than k cannot reach 1.

    Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), 8.3.
    """
    return hits[:, :k].sum(dim=1).double() / sizes


def recall_of_reachable(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """|T and R| / min(k, |R|). Denominator: the relevant songs that fit into k places, so that 1 can be reached.

    Liang et al., "Variational autoencoders for collaborative filtering" (2018), 4.3.
    """
    return hits[:, :k].sum(dim=1).double() / sizes.clamp(max=k)


def precision(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """|T and R| / k. Denominator: k, even if fewer than k songs could be listed. Manning et al. (2008), 8.4."""
    return hits[:, :k].double().mean(dim=1)


def hit_rate(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """1 if any song of T is relevant, else 0. Denominator (of the average): users with a relevant song.

    Deshpande and Karypis, "Item-based top-N recommendation algorithms" (2004), 5.1.
    """
    return hits[:, :k].any(dim=1).double()


def reciprocal_rank(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """1 / rank of the first relevant song in T, 0 if there is none; its average is the mean reciprocal rank (MRR).

    Denominator: the rank, counted from 1. Voorhees, "The TREC-8 question answering track report" (1999).
    """
    return (hits[:, :k] / _ranks(k)).amax(dim=1)


def average_precision(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """Sum of the precision at the rank of each relevant song in T; its average is the mean average precision (MAP).

    Denominator: min(k, |R|), as in PyG's ``LinkPredMAP`` and implicit, so that 1 can be reached; TREC divides by |R|.
    Manning et al. (2008), 8.4.
    """
    found = hits[:, :k].double()
    return (found * found.cumsum(dim=1) / _ranks(k)).sum(dim=1) / sizes.clamp(max=k)


def ndcg(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """DCG / ideal DCG with gain 1 for a relevant song and discount 1 / log2(rank + 1).

    Denominator: the DCG of min(k, |R|) relevant songs in the first places (the ideal list, cut at k). Järvelin and
    Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    return (hits[:, :k] * _discounts(k)).sum(dim=1) / _ideal(sizes, k)


def ndcg_of_retrieved(hits: Tensor, sizes: Tensor, k: int) -> Tensor:
    """DCG / DCG of the same hits in the best order; 0 without hits. A song that is not retrieved costs nothing.

    Denominator: the DCG of min(k, hits in all m places) relevant songs in the first places; m is the longest list of
    the table. This follows the code of Wang et al., "KGAT: Knowledge graph attention network for recommendation"
    (2019), whose lists have 100 places.
    """
    retrieved = hits.sum(dim=1).double()
    return (hits[:, :k] * _discounts(k)).sum(dim=1) / _ideal(retrieved.clamp(min=1), k)


METRICS: Mapping[str, Formula] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "hit_rate": hit_rate,
}
"""The metrics of the contract."""

CONVENTIONS: Mapping[str, Mapping[str, Formula]] = {
    "lightgcn": {"recall": recall, "ndcg": ndcg, "precision": precision},
    "min_k": {"recall": recall_of_reachable, "ndcg": ndcg},
    "kgat": {"recall": recall, "ndcg": ndcg_of_retrieved, "precision": precision, "hit_rate": hit_rate},
}
"""Formulas of the published code of LightGCN (it cuts the ideal list at k, as we do), of Mult-VAE and the papers that
follow it, and of KGAT."""


def _ranks(k: int) -> Tensor:
    return torch.arange(1, k + 1, dtype=torch.float64)


def _discounts(k: int) -> Tensor:
    return 1 / torch.log2(_ranks(k) + 1)


def _ideal(sizes: Tensor, k: int) -> Tensor:
    """Return the DCG of min(k, size) relevant songs in the first places."""
    return torch.cumsum(_discounts(k), dim=0)[sizes.long().clamp(max=k) - 1]

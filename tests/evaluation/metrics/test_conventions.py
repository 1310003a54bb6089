"""Metrics as other papers' code computes them, against loops that read like that code."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from evaluation.metrics.accuracy import CONVENTIONS, METRICS, conventional_metrics, ranking_metrics

LONGEST = 6


def dcg(hits: list[bool], k: int) -> float:
    return sum(hit / math.log2(place + 2) for place, hit in enumerate(hits[:k]))


def naive(hits: list[bool], relevant: int, k: int) -> dict[str, dict[str, float]]:
    """``hits`` of the longest list, for one user."""
    found = sum(hits[:k])
    ideal = dcg([True] * min(k, relevant), k)
    best_order = dcg(sorted(hits, reverse=True), k)  # KGAT sorts what was retrieved
    recall, precision = found / relevant, found / k
    kgat = dcg(hits, k) / best_order if best_order else 0.0
    return {
        "lightgcn": {"recall": recall, "ndcg": dcg(hits, k) / ideal, "precision": precision},
        "min_k": {"recall": found / min(k, relevant), "ndcg": dcg(hits, k) / ideal},
        "kgat": {"recall": recall, "ndcg": kgat, "precision": precision, "hit_rate": float(found > 0)},
    }


@given(
    st.permutations(list(range(8))).map(lambda songs: songs[:LONGEST]),
    st.sets(st.integers(0, 9), min_size=1),
    st.sets(st.integers(1, LONGEST - 1)),
    st.sampled_from(sorted(CONVENTIONS)),
)
def test_equals_the_naive_loop(items: list[int], relevant: set[int], shorter: set[int], convention: str) -> None:
    ks = sorted({*shorter, LONGEST})
    pairs = torch.tensor([[0, song] for song in relevant]).T
    found = conventional_metrics(torch.tensor([items]), pairs, ks, convention)
    hits = [song in relevant for song in items]
    expected = {f"{name}@{k}": value for k in ks for name, value in naive(hits, len(relevant), k)[convention].items()}
    assert {name: values.item() for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_ours_is_lightgcns() -> None:
    assert all(METRICS[name] is formula for name, formula in CONVENTIONS["lightgcn"].items())


def test_each_convention_flatters_in_its_own_way() -> None:
    # One song a place is relevant 3 times over: ranked 0, 9, 8; relevant 0, 1, 2, 3.
    items, relevant = torch.tensor([[0, 9, 8]]), torch.tensor([[0] * 4, [0, 1, 2, 3]])
    ours = ranking_metrics(items, relevant, 2)
    assert (ours["recall"].item(), ours["ndcg"].item()) == pytest.approx((1 / 4, 1 / (1 + 1 / math.log2(3))))
    assert conventional_metrics(items, relevant, [2], "min_k")["recall@2"].item() == 1 / 2
    assert conventional_metrics(items, relevant, [2], "kgat")["ndcg@2"].item() == 1.0


def test_kgat_depends_on_the_longest_list() -> None:
    items, relevant = torch.tensor([[9, 0, 1]]), torch.tensor([[0, 0], [0, 1]])
    alone = conventional_metrics(items, relevant, [2], "kgat")["ndcg@2"].item()
    beside = conventional_metrics(items, relevant, [2, 3], "kgat")["ndcg@2"].item()
    assert alone == pytest.approx(1 / math.log2(3))
    assert beside == pytest.approx(1 / math.log2(3) / (1 + 1 / math.log2(3)))


def test_an_unknown_convention_is_named() -> None:
    with pytest.raises(InputError) as error:
        conventional_metrics(torch.tensor([[0]]), torch.tensor([[0], [0]]), [1], "lightgnc")
    assert str(error.value) == (
        "There is no metric convention 'lightgnc'. Did you mean 'lightgcn'? Allowed: kgat, lightgcn, min_k."
    )

"""AUC, calibration error and per-item means against loops and cases that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.multitask.label_metrics import (
    STRENGTHS,
    ItemMeans,
    Labelled,
    auc,
    calibration_error,
    explained,
    task_metrics,
)


def naive_auc(predicted, target):
    better = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, one in zip(predicted, target, strict=True)
        for low, other in zip(predicted, target, strict=True)
        if one > 0.5 >= other
    ]
    return sum(better) / len(better)


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_the_share_of_pairs_in_the_right_order(seed):
    rng = np.random.default_rng(seed)
    predicted, target = rng.integers(6, size=40) / 6, rng.random(40)
    assert auc(predicted, target) == pytest.approx(naive_auc(predicted, target))


def test_auc_of_one_class_does_not_exist():
    assert auc(np.array([0.1, 0.2]), np.ones(2)) is None


def test_calibration_error_weighs_the_bins_by_their_pairs():
    # three pairs in the bin from 0.2, which are 0.05 too low on average, and one in the last, 0.1 too low
    predicted, target = np.array([0.2, 0.25, 0.3 - 1e-9, 0.9]), np.array([0.3, 0.3, 0.3, 1.0])
    assert calibration_error(predicted, target) == pytest.approx(0.75 * 0.05 + 0.25 * 0.1, abs=1e-6)
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0


def test_explained_is_what_is_left_of_the_references_error():
    target, reference = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    assert explained(target, target, reference) == 1
    assert explained(reference, target, reference) == 0
    assert explained(target, target, target) is None


def test_item_means_are_drawn_to_the_overall_mean_by_what_predicts_the_others_best():
    rng = np.random.default_rng(0)
    items, targets = rng.integers(8, size=60), rng.random(60)
    known = Labelled(items, items, targets)
    means = ItemMeans(known, 9)

    def predicted(item, others, strength):
        of_item = [targets[place] for place in others if items[place] == item]
        return (sum(of_item) + strength * targets.mean()) / (len(of_item) + strength)

    def error(strength):
        places = range(len(items))
        return sum(
            (predicted(items[own], [place for place in places if place != own], strength) - targets[own]) ** 2
            for own in places
        )

    best = min(STRENGTHS, key=error)
    assert means.strength == best
    everyone = range(len(items))
    assert means(np.arange(9)).tolist() == pytest.approx([predicted(item, everyone, best) for item in range(9)])


def test_metrics_that_the_pairs_do_not_define_are_left_out():
    same = Labelled(np.zeros(3, int), np.zeros(3, int), np.ones(3))
    found = task_metrics(np.array([0.9, 0.8, 1.0]), same, ItemMeans(same, 1))
    assert list(found) == ["ece"]

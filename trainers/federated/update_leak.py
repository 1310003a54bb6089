"""What an update still shows of a client's listens, for those who measure it; no client and no server asks."""

from __future__ import annotations

from torch import Tensor

from trainers.multitask.label_metrics import auc


def leak(update: Tensor, heard: Tensor) -> float:
    """How well an update of song rows (S, D) tells which songs its client heard, (S,) bool: an area under a ROC curve.

    0.5 is a guess, also where all songs are heard or none, 1 gives every song away. It is the best of two looks, each
    either way round: how far a row moved, and how far it moved along the average row, which all songs are pushed along
    but those that were heard.
    """
    looks = update.norm(dim=1), update @ update.mean(0)
    areas = [auc(score.double().numpy(), heard.double().numpy()) for score in looks]
    return max(0.5 if area is None else max(area, 1 - area) for area in areas)

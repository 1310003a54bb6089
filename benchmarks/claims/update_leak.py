"""How much of a client's listens its update shows, in a federated training."""

from __future__ import annotations

from torch import Tensor

from trainers.multitask.label_metrics import auc


def leak(update: Tensor, heard: Tensor) -> float:
    """Return how well an update of song rows (S, D) tells which songs its client heard, (S,) bool: an area under a ROC.

    0.5 is a guess, also if all songs are heard or none; 1 gives every song away. An attacker may rank the songs by how
    far their row moved, or by how far it moved along the mean row, since training pushes all songs along that row but
    the heard ones. Either ranking may be turned round. The result is the best of these four.
    """
    rankings = update.norm(dim=1), update @ update.mean(0)
    areas = [auc(score.double().numpy(), heard.double().numpy()) for score in rankings]
    return max(0.5 if area is None else max(area, 1 - area) for area in areas)

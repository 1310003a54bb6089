"""Losses over pairs of vectors: sampled softmax and BPR."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LOGITS = 1 << 23
"""Scores that the softmax holds at once: 8 million, 32 MB in float32."""


LEAST, TINY = -1e30, 1e-30
"""Stand in for log 0 and for 0, if a user knows every candidate."""


class Candidates(NamedTuple):
    """Songs that positives compete with.

    Shapes: vectors (C, D), the songs' vectors; known (2, M), the row of a user and the column of a candidate that the
    user already knows. population is the number of songs that the candidates were sampled from.
    """

    vectors: Tensor
    known: Tensor
    population: int


def sampled_softmax(users: Tensor, songs: Tensor, rows: Tensor, candidates: Candidates, temperature: float) -> Tensor:
    """Return the cross-entropy of each positive against the candidates that its user does not know, as their mean.

    With s(u, i) = z_u . z_i / temperature, a positive (u, i), S songs and C of them sampled uniformly,

        loss = -s(u, i) + log( exp s(u, i) + (S / C) * sum over candidates j that u does not know of exp s(u, j) ).

    S / C makes the sum an unbiased estimate of the full one; with all songs it is 1 and the loss is exact. A user's
    train songs are hidden when songs are ranked, so the others never compete with them: the loss is the likelihood of
    the next new song. The sum is the same for all pairs of a user, so it is computed once.

    Scores are computed in blocks of rows and turned into gradients at once, so memory does not grow with B x C.

    Sources: Wu et al., "On the Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2024; Jean et
    al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL 2015 (the correction).

    Shapes: users (B, D), vectors of the users; songs (P, D), vectors of the positives, ordered by user; rows (P,),
    rising, the row in ``users`` of each positive's user; result a scalar.
    """
    loss: Tensor = _SampledSoftmax.apply(users, songs, candidates.vectors, rows, candidates, temperature)
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """Computes loss and gradients in one pass: the loss is a scalar, so its gradients are known up to a factor."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        songs: Tensor,
        vectors: Tensor,
        rows: Tensor,
        candidates: Candidates,
        temperature: float,
    ) -> Tensor:
        loss = users.new_zeros(())
        grads = torch.empty_like(users), torch.empty_like(songs), torch.zeros_like(vectors)
        starts = torch.arange(0, len(users), max(1, MAX_LOGITS // len(vectors)), device=rows.device)
        bounds = torch.cat([starts, starts.new_tensor([len(users)])])
        pairs, known = torch.searchsorted(rows, bounds), torch.searchsorted(candidates.known[0].contiguous(), bounds)
        for n in range(len(starts)):
            block, own = slice(*bounds[n : n + 2].tolist()), slice(*pairs[n : n + 2].tolist())
            hidden = candidates.known[:, slice(*known[n : n + 2].tolist())]
            loss += _block(users, songs, rows, candidates, temperature, block, own, hidden, grads)
        for grad in grads:
            grad /= temperature * len(songs)
        ctx.save_for_backward(*grads)
        return loss / len(songs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        users, songs, vectors = ctx.saved_tensors
        return users * upstream[0], songs * upstream[0], vectors * upstream[0], None, None, None


def _block(
    users: Tensor,
    songs: Tensor,
    rows: Tensor,
    candidates: Candidates,
    temperature: float,
    block: slice,
    own: slice,
    hidden: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Return the summed loss of some users' pairs; write their gradients, times temperature and P, to ``grads``."""
    of, row, positive = users[block], rows[own] - block.start, songs[own]
    scaled = of / temperature
    logits = scaled @ candidates.vectors.T  # (b, C)
    logits[hidden[0] - block.start, hidden[1]] = -math.inf
    top = logits.amax(1).clamp(min=LEAST)  # of a user who knows all candidates
    odds = logits.sub_(top[:, None]).exp_()  # the only pass of exp over the block, and in place
    sums = odds.sum(1)
    others = (top + sums.log() + math.log(candidates.population / len(candidates.vectors))).index_select(0, row)
    score = (scaled.index_select(0, row) * positive).sum(1)
    total = torch.logaddexp(others, score)
    surprise = torch.expm1(score - total)  # probability of the positive, less 1
    mass = torch.zeros_like(sums).index_add_(0, row, (others - total).exp())
    share = (mass / sums.clamp(min=TINY))[:, None]  # odds times this: probability of each candidate, over all pairs
    grads[0][block] = (odds @ candidates.vectors) * share
    grads[0][block].index_add_(0, row, surprise[:, None] * positive)
    grads[1][own] = surprise[:, None] * of.index_select(0, row)
    grads[2].addmm_(odds.T, of * share)
    return (total - score).sum()


def bpr(users: Tensor, songs: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return the pairwise loss -log sigmoid((z_u . z_i - z_u . z_j) / temperature), averaged over the batch.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

    Shapes: users, songs and negatives (B, D), j a song that the user has no train edge to; result a scalar.
    """
    return -F.logsigmoid((users * (songs - negatives)).sum(1) / temperature).mean()

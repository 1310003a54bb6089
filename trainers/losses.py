"""Losses over pairs of vectors: sampled softmax and BPR, and the L2 term that goes with either."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LOGITS = 1 << 23
"""Scores that the softmax holds at once: 8 million, 32 MB in float32."""


class Candidates(NamedTuple):
    """Songs that a batch's positives compete with.

    Shapes: vectors (C, D), the songs' vectors; columns (B,), where each pair's own song is among them, or -1.
    population: how many songs the candidates stand for; C itself if they are all of them.
    """

    vectors: Tensor
    columns: Tensor
    population: int


def sampled_softmax(users: Tensor, songs: Tensor, candidates: Candidates, temperature: float) -> Tensor:
    """Cross-entropy of each positive against the candidates, averaged over the batch.

    With s(u, i) = z_u . z_i / temperature, a positive (u, i), S songs and C of them sampled uniformly,

        loss = -s(u, i) + log( exp s(u, i) + (S / C) * sum over candidates j != i of exp s(u, j) ).

    S / C makes the sum an unbiased estimate of the full one; with all songs it is 1 and the loss is exact. Only the
    pair's own song is taken out of the candidates ("accidental hits"). A user's other train songs stay in: the
    softmax is the likelihood of one draw among all songs, and they are in its denominator.

    Scores are made in blocks of rows and turned into gradients at once, so memory does not grow with B x C.

    Sources: Wu et al., "On the Effectiveness of Sampled Softmax Loss for Item Recommendation", TOIS 2024; Jean et
    al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL 2015 (the correction).

    Shapes: users (B, D), songs (B, D): the positives' vectors; result a scalar.
    """
    loss: Tensor = _SampledSoftmax.apply(users, songs, candidates.vectors, candidates, temperature)
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """The loss is a scalar, so its gradients are known, up to a factor, as soon as a block's scores are."""

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, songs: Tensor, vectors: Tensor, candidates: Candidates, temperature: float
    ) -> Tensor:
        loss = users.new_zeros(())
        grads = torch.empty_like(users), torch.empty_like(songs), torch.zeros_like(vectors)
        block = max(1, MAX_LOGITS // len(vectors))
        for start in range(0, len(users), block):
            rows = slice(start, start + block)
            loss += _block(users[rows], songs[rows], candidates, candidates.columns[rows], temperature, rows, grads)
        for grad in grads:
            grad /= temperature * len(users)
        ctx.save_for_backward(*grads)
        return loss / len(users)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        users, songs, vectors = ctx.saved_tensors
        return users * upstream[0], songs * upstream[0], vectors * upstream[0], None, None


def _block(
    users: Tensor,
    songs: Tensor,
    candidates: Candidates,
    columns: Tensor,
    temperature: float,
    rows: slice,
    grads: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Summed loss of some rows; their gradients, times temperature and batch size, go into ``grads``."""
    scaled = users / temperature
    positive = (scaled * songs).sum(1)
    logits = scaled @ candidates.vectors.T  # (b, C)
    hit = (columns >= 0).nonzero().squeeze(1)
    logits[hit, columns[hit]] = -math.inf
    top = torch.maximum(logits.amax(1), positive)
    odds = logits.sub_(top[:, None]).exp_()  # the only pass of exp over the block, and in place
    each = candidates.population / len(candidates.vectors)
    total = torch.logaddexp(top + (each * odds.sum(1)).log(), positive)
    to_share = (each * (top - total).exp())[:, None]  # odds times this: probability of each candidate
    surprise = torch.expm1(positive - total)[:, None]  # probability of the positive, less 1
    grads[0][rows] = (odds @ candidates.vectors) * to_share + surprise * songs
    grads[1][rows] = surprise * users
    grads[2].addmm_(odds.T, users * to_share)
    return (total - positive).sum()


def bpr(users: Tensor, songs: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Pairwise loss: -log sigmoid((z_u . z_i - z_u . z_j) / temperature), averaged over the batch.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

    Shapes: users, songs and negatives (B, D), j a song that the user has no train edge to; result a scalar.
    """
    return -F.logsigmoid((users * (songs - negatives)).sum(1) / temperature).mean()

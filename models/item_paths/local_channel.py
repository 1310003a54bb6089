"""The local channel: attention from a candidate song over the songs that a user listened to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from models.item_paths.listened import History
from models.item_paths.local_scores import LocalScores, Relation
from models.item_paths.paths import Neighbors, SongEdges
from models.kernels.compiled import in_balanced_parts
from models.kernels.path_counts import HIGH, LOW, history_sums, history_sums_backward

STEP = 4.0
"""A parameter's effect per unit: these few numbers need longer steps than the entries of a vector of hundreds."""

LISTEN_HEADS = [[5.4, 0.1, -0.8, 1.6, 0.0], [5.0, -0.1, -0.7, 0.0, 1.3]]
ARTIST_HEADS = [[4.5, -0.2, -0.7, 1.5]]
"""Where training starts, see ``LocalChannel.heads``: the first two lean on one strength each."""


class LocalChannel(nn.Module):
    """Scores a song by the user's own songs that lead to it, with a few dozen parameters and no vectors.

    Two songs are joined by the users who heard both and by their artists; the strengths of that edge are those of
    ``models.item_paths.paths``. In head h, the song j that a user listened to counts for the candidate i

        a_ij = exp( sum over p of alpha_hp log strength_p(i, j) + beta_h log d_i + gamma_h log d_j + b_h )

    and all of them together log(1 + n_u^-delta_h sum over j of a_ij), with d a song's listeners and n_u a user's
    songs. The logarithm makes a head the odds of a mixture: many weak hints do not outshout a strong one. The final
    score adds up the heads, the similarity of the vectors and the song's popularity,

        s(u, i) = sum over h of g_h(u, i) head_h(u, i) + g(u, i) cos(z_u, z_i) + w log d_i,

    where each gate g is linear in log n_u and log d_i, written around their means: tracks of few listeners lean on
    their artist, and a user of few songs on what is known.

    It takes and returns tensors on the CPU, where the history and the compiled loops are. Its parameters may be
    elsewhere, with the rest of the model: they are few enough to be fetched in each step.

    For a training pair the score is that of a world in which the user never heard the song: it is missing from the
    history, the user from its listeners and from the paths between the two. So it does not depend on the pair's own
    edge, exactly. Only n_u stays, since it is that of the songs which compete: one less would tell a positive.

    Sources: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004, and Paudel et al.,
    "Updatable, accurate, diverse, and scalable recommendations for interactive applications", TiiS 2017 (strengths by
    paths, degrees to a power); Velickovic et al., "Graph Attention Networks", ICLR 2018 (weights learned from both
    ends).
    """

    def __init__(self) -> None:
        super().__init__()
        # near what training finds on logs of several kinds, so that little is left to learn and a small log is enough
        self.user_heads = _scaled(LISTEN_HEADS)
        self.artist_heads = _scaled(ARTIST_HEADS)
        self.user_power = _scaled([0.7, 0.9, -0.3])
        self.gates = _scaled([[1.2, 0.0, 0.0], [0.8, 0.0, 0.0], [1.3, 0.0, 0.0], [2.0, 0.0, 0.0]])
        self.popularity = _scaled([0.0])

    @property
    def heads(self) -> tuple[Tensor, Tensor]:
        """Of users' and of artists' paths: (H, F + 3) bias, log d_i, log d_j, then the F strengths."""
        return _unscaled(self.user_heads), _unscaled(self.artist_heads)

    def pair_scores(self, known: History, users: Tensor, songs: Tensor, similarity: Tensor) -> Tensor:
        """Scores of train pairs (B,) with each pair's own edge left out: (B,)."""
        listeners = (known.log_listeners[songs].exp() - 1).clamp(min=1).log()
        sums = []
        for paths, head in zip(known.relations, self.heads, strict=True):
            edges = paths.pair_edges(users.numpy(), songs.numpy(), known.listens, paths is known.users)
            owner = torch.from_numpy(edges.owner)
            weight = _edge_weights(head, edges, listeners[owner], known.log_listeners)
            sums.append(weight.new_zeros(len(users), len(head)).index_add(0, owner, weight))
        return self._combined(torch.cat(sums, 1), known.log_listens[users], listeners, similarity, known.usual)

    def scores(self, known: History, users: Tensor, candidates: Tensor, similarity: Tensor) -> Tensor:
        """Scores of candidate songs (C,) for users (B,), for songs that the user has not heard: (B, C)."""
        rows, wanted = known.listens.rows(users.numpy()), candidates.numpy()
        listeners = known.log_listeners[candidates]
        sums = []
        for paths, head in zip(known.relations, self.heads, strict=True):
            edges = paths.edges(wanted)
            weight = _edge_weights(head, edges, listeners[torch.from_numpy(edges.owner)], known.log_listeners)
            sums.append(_HistorySums.apply(weight, edges, rows, len(known.log_listeners)))
        listens = known.log_listens[users][:, None]
        return self._combined(torch.cat(sums, 2), listens, listeners[None], similarity, known.usual)

    def _combined(
        self, sums: Tensor, listens: Tensor, listeners: Tensor, similarity: Tensor, usual: tuple[float, float]
    ) -> Tensor:
        heads = torch.log1p(sums * (-_unscaled(self.user_power) * listens[..., None]).exp())
        parts = torch.cat([heads, similarity[..., None]], -1)
        base, by_listens, by_listeners = _unscaled(self.gates).unbind(1)
        # the gates are linear, so each of their three terms is one product
        return (
            parts @ base
            + (parts @ by_listens) * (listens - usual[0])
            + (parts @ by_listeners) * (listeners - usual[1])
            + _unscaled(self.popularity) * listeners
        )

    @torch.no_grad()
    def compiled(self, known: History) -> LocalScores:
        """The same scores for all songs, without torch: what is saved and served."""
        relations = (Relation(paths, head.numpy()) for paths, head in zip(known.relations, self.heads, strict=True))
        gates = _unscaled(self.gates).numpy()
        centred = gates * [1, -known.usual[0], -known.usual[1]]
        return LocalScores(
            known.listens,
            tuple(relations),
            user_power=_unscaled(self.user_power).numpy(),
            gates=np.stack([centred.sum(1), gates[:, 1], gates[:, 2]], 1).astype(np.float32),
            popularity=float(_unscaled(self.popularity)),
        )


def _scaled(values: Sequence[Any]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values) / STEP)


def _unscaled(parameter: Tensor) -> Tensor:
    """What a parameter stands for, on the CPU; differentiable."""
    return parameter.cpu() * STEP


def _edge_weights(head: Tensor, edges: SongEdges, listeners: Tensor, log_listeners: Tensor) -> Tensor:
    """a_ij of each edge in each head: (E, H)."""
    other = log_listeners[torch.from_numpy(edges.other).long()]
    strength = torch.from_numpy(edges.strength).log()
    features = torch.cat([torch.ones(len(other), 1), listeners[:, None], other[:, None], strength], 1)
    return (features @ head.T).clamp(LOW, HIGH).exp()


class _HistorySums(torch.autograd.Function):
    """For each user and candidate, the sum of the weights of the edges between the user's songs and it: (B, C, H)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, edges: SongEdges, rows: Neighbors, num_songs: int) -> Tensor:
        # the edges are in the order of the candidates; users meet them by the song that they listened to
        order = csr_array(
            (np.arange(len(edges.other)), edges.other, edges.start), shape=(len(edges.start) - 1, num_songs)
        ).tocsc()
        ctx.edges = start, candidate, place = order.indptr.astype(np.int64), order.indices, order.data
        listeners = csr_array(
            (np.ones(len(rows.node), np.int8), rows.node, rows.start), shape=(len(rows.start) - 1, num_songs)
        ).tocsc()
        ctx.listeners = listeners.indptr.astype(np.int64), listeners.indices
        out = np.empty((len(rows.start) - 1, len(edges.start) - 1, weight.shape[1]), dtype=np.float32)
        sorted_weight = weight.detach().numpy()[place]
        in_balanced_parts(history_sums, rows.degree, *rows, start, candidate, sorted_weight, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        start, candidate, place = ctx.edges
        grad = grads[0].contiguous().numpy()
        found = np.empty((len(place), grad.shape[2]), dtype=np.float32)
        cost = np.diff(start) * np.diff(ctx.listeners[0])
        in_balanced_parts(history_sums_backward, cost, *ctx.listeners, start, candidate, grad, found)
        out = np.empty_like(found)
        out[place] = found
        return torch.from_numpy(out), None, None, None

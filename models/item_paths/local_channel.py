"""The local channel: a learned item-to-item scorer over the songs that a user listened to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from models.item_paths.listened_songs import ListenedSongs
from models.item_paths.local_scorer import LocalScorer, PathHeads
from models.item_paths.paths import Neighbors, SongEdges
from models.kernels.compiled import in_balanced_parts
from models.kernels.path_counts import HIGH, LOW, listened_sums, listened_sums_backward

PARAMETER_SCALE = 4.0
"""Parameters are multiplied by this, so that these few numbers move further per step than the entries of vectors."""

INITIAL_LISTENER_HEADS = [[5.4, 0.1, -0.8, 1.6, 0.0], [5.0, -0.1, -0.7, 0.0, 1.3]]
INITIAL_ARTIST_HEADS = [[4.5, -0.2, -0.7, 1.5]]
"""Initial values, see ``LocalChannel.heads``; each of the two listener heads mainly uses one of the strengths."""


class LocalChannel(nn.Module):
    """Scores a song by the paths that lead to it from the user's own songs; it has a few dozen parameters, no vectors.

    Two songs are joined by the users who listened to both, and by their common artists. ``Paths`` defines the strengths
    of such an edge. In head h, the candidate song i attends to song j, which the user listened to, with the weight

        a_ij = exp( sum over p of alpha_hp log strength_p(i, j) + beta_h log d_i + gamma_h log d_j + b_h )

    and the head is log(1 + n_u^-delta_h sum over j of a_ij). Here d is a song's number of listeners, and n_u the user's
    number of songs. The logarithm makes heads multiply like odds, and keeps many weak paths from outweighing a strong
    one. The score adds up the heads, the similarity of the vectors and the song's popularity,

        s(u, i) = sum over h of g_h(u, i) head_h(u, i) + g(u, i) cos(z_u, z_i) + w log d_i,

    and each gate g is linear in log n_u and log d_i, centred at their means. So a song with few listeners can rely on
    its artist.

    The score of a training pair is computed as if the user had never listened to the song: the song is missing from the
    user's songs, and the user from the song's listeners and from the paths. So it does not depend on the pair's own
    edge at all. Only n_u stays, because it is the same for the competing songs: one less would reveal the positive.

    Inputs and outputs are on the CPU, like the listened songs and the compiled loops. The parameters may be on another
    device, with the rest of the model; they are few and are copied in each step.

    Sources: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004, and Paudel et al.,
    "Updatable, accurate, diverse, and scalable recommendations for interactive applications", TiiS 2017 (strengths by
    paths, degrees to a power); Velickovic et al., "Graph Attention Networks", ICLR 2018 (weights learned from both
    ends).
    """

    def __init__(self) -> None:
        super().__init__()
        # close to what training finds on several kinds of logs, so that a small log is enough to learn the rest
        self.user_heads = _scaled(INITIAL_LISTENER_HEADS)
        self.artist_heads = _scaled(INITIAL_ARTIST_HEADS)
        self.user_power = _scaled([0.7, 0.9, -0.3])
        self.gates = _scaled([[1.2, 0.0, 0.0], [0.8, 0.0, 0.0], [1.3, 0.0, 0.0], [2.0, 0.0, 0.0]])
        self.popularity = _scaled([0.0])

    @property
    def heads(self) -> tuple[Tensor, Tensor]:
        """Heads of the paths through users, and through artists: (H, F + 3) bias, log d_i, log d_j, F strengths."""
        return _unscaled(self.user_heads), _unscaled(self.artist_heads)

    def pair_scores(self, listened: ListenedSongs, users: Tensor, songs: Tensor, similarity: Tensor) -> Tensor:
        """Return the scores of train pairs (B,), each without the pair's own edge: (B,)."""
        listeners = (listened.log_listeners[songs].exp() - 1).clamp(min=1).log()
        sums = []
        for paths, head in zip(listened.paths, self.heads, strict=True):
            edges = paths.pair_edges(users.numpy(), songs.numpy(), listened.listens, paths is listened.users)
            owner = torch.from_numpy(edges.owner)
            weight = _edge_weights(head, edges, listeners[owner], listened.log_listeners)
            sums.append(weight.new_zeros(len(users), len(head)).index_add(0, owner, weight))
        return self._combined(
            torch.cat(sums, 1), listened.log_listens[users], listeners, similarity, listened.mean_logs
        )

    def scores(self, listened: ListenedSongs, users: Tensor, candidates: Tensor, similarity: Tensor) -> Tensor:
        """Return the scores of candidate songs (C,) for users (B,): (B, C); right only for songs new to the user."""
        rows, wanted = listened.listens.rows(users.numpy()), candidates.numpy()
        listeners = listened.log_listeners[candidates]
        sums = []
        for paths, head in zip(listened.paths, self.heads, strict=True):
            edges = paths.edges(wanted)
            weight = _edge_weights(head, edges, listeners[torch.from_numpy(edges.owner)], listened.log_listeners)
            sums.append(_ListenedSums.apply(weight, edges, rows, len(listened.log_listeners)))
        listens = listened.log_listens[users][:, None]
        return self._combined(torch.cat(sums, 2), listens, listeners[None], similarity, listened.mean_logs)

    def _combined(
        self, sums: Tensor, listens: Tensor, listeners: Tensor, similarity: Tensor, mean_logs: tuple[float, float]
    ) -> Tensor:
        heads = torch.log1p(sums * (-_unscaled(self.user_power) * listens[..., None]).exp())
        parts = torch.cat([heads, similarity[..., None]], -1)
        base, by_listens, by_listeners = _unscaled(self.gates).unbind(1)
        # the gates are linear, so each of their three terms is one matrix product
        return (
            parts @ base
            + (parts @ by_listens) * (listens - mean_logs[0])
            + (parts @ by_listeners) * (listeners - mean_logs[1])
            + _unscaled(self.popularity) * listeners
        )

    @torch.no_grad()
    def scorer(self, listened: ListenedSongs) -> LocalScorer:
        """Return the scorer of all songs, without torch; it is saved with the model and used in serving."""
        path_heads = (PathHeads(paths, head.numpy()) for paths, head in zip(listened.paths, self.heads, strict=True))
        gates = _unscaled(self.gates).numpy()
        centred = gates * [1, -listened.mean_logs[0], -listened.mean_logs[1]]
        return LocalScorer(
            listened.listens,
            tuple(path_heads),
            user_power=_unscaled(self.user_power).numpy(),
            gates=np.stack([centred.sum(1), gates[:, 1], gates[:, 2]], 1).astype(np.float32),
            popularity=float(_unscaled(self.popularity)),
        )


def _scaled(values: Sequence[Any]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values) / PARAMETER_SCALE)


def _unscaled(parameter: Tensor) -> Tensor:
    """Return the effective value of a parameter, on the CPU; differentiable."""
    return parameter.cpu() * PARAMETER_SCALE


def _edge_weights(head: Tensor, edges: SongEdges, listeners: Tensor, log_listeners: Tensor) -> Tensor:
    """Return a_ij of each edge in each head: (E, H)."""
    other = log_listeners[torch.from_numpy(edges.other).long()]
    strength = torch.from_numpy(edges.strength).log()
    features = torch.cat([torch.ones(len(other), 1), listeners[:, None], other[:, None], strength], 1)
    return (features @ head.T).clamp(LOW, HIGH).exp()


class _ListenedSums(torch.autograd.Function):
    """Sums, for each user and candidate, the weights of the edges from the user's songs to it: (B, C, H)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, edges: SongEdges, rows: Neighbors, num_songs: int) -> Tensor:
        # sort the edges, which are in the order of the candidates, by the song that users listened to
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
        in_balanced_parts(listened_sums, rows.degree, *rows, start, candidate, sorted_weight, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        start, candidate, place = ctx.edges
        grad = grads[0].contiguous().numpy()
        found = np.empty((len(place), grad.shape[2]), dtype=np.float32)
        cost = np.diff(start) * np.diff(ctx.listeners[0])
        in_balanced_parts(listened_sums_backward, cost, *ctx.listeners, start, candidate, grad, found)
        out = np.empty_like(found)
        out[place] = found
        return torch.from_numpy(out), None, None, None

"""Finds users who may be fake, by how much they agree with the other listeners of a song.

One fake profile looks like an odd listener. A group of them gives itself away: all listen to the pushed song, and for
it to be recommended they also have to agree on what leads to it. The more they agree, the more they push.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import LISTENS, REV_LISTENS, message_graph

FEWEST_LISTENERS = 8
"""Songs with fewer listeners are skipped: so few cannot push a song far, and honest ones may agree by chance."""

COMPARED = 200
"""Songs of about as many listeners that a song is compared with."""

ONE_DEVIATION = 0.8413
"""Share of a normal distribution that lies below its middle plus one standard deviation."""

ENTRIES_AT_ONCE = 2**23
"""Song-to-song counts in memory at once: some 100 MB."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class FakeUsers(NamedTuple):
    """Users who may be fake, the most suspicious first, and the songs that they seem to push; both int64."""

    users: Tensor
    songs: Tensor


NONE_FOUND = FakeUsers(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def find_fake_users(graph: HeteroData, most: float, deviations: float) -> FakeUsers:
    """Find users who push a song together, at most a share ``most`` of all users.

    The agreement of a song's listeners L is how many other songs their pairs share, against how many they would if
    everyone had drawn as many songs by popularity: with c_j of them listening to another song j, n_u the songs of user
    u, and q_j song j's share of all listens,

        agreement = sum_j c_j (c_j - 1) / ( sum over pairs u != v of (n_u - 1) (n_v - 1) * sum_j q_j^2 ).

    Taste makes it greater than 1, and the usual value falls with the number of listeners. So the logarithm is compared
    with that of the ``COMPARED`` songs whose audience is about as large: by their median, and by the distance from
    there to their 84th percentile, which is a standard deviation of the upper half whatever the lower one is like. A
    song above ``deviations`` of these is suspicious, and so are those of its listeners whose own agreement with the
    others is above the same bound; its other listeners are not.

    Written for this project, from two observations. Fake users resemble each other more than honest ones do: Mehta
    and Nejdl, "Unsupervised strategies for shilling detection and robust collaborative filtering", User Modeling and
    User-Adapted Interaction 2009, whose own method needs to know how many there are. And the song that they share
    gives them away: Zhou et al., "Shilling attacks detection in recommender systems based on target item analysis",
    PLOS ONE 2015.

    Args:
        graph: what a model may see; all its listens count.
    """
    heard = _matrix(graph)
    found = _Audiences(heard)
    allowed = int(most * heard.shape[0])
    if not allowed or not len(found.songs):
        return NONE_FOUND
    bound, excess = found.bounds(deviations)
    order = np.argsort(-excess, kind="stable")
    suspicious = order[excess[order] > deviations]
    groups = [found.agreeing(place, bound[place]) for place in suspicious]
    return _most_suspicious(groups, found.songs[suspicious], allowed)


def without_listens_of(users: Tensor, graph: HeteroData) -> HeteroData:
    """Return what a model may see of a graph without the listens of some users, who stay as if they were new."""
    seen = message_graph(graph)
    if not len(users):
        return seen
    listener = seen[LISTENS].edge_index[0]
    kept = ~torch.isin(listener, users.to(listener.device))
    for kind in (LISTENS, REV_LISTENS):
        seen[kind].edge_index, seen[kind].weight = seen[kind].edge_index[:, kept], seen[kind].weight[kept]
    return seen


class _Audiences:
    """The listeners of the songs that have enough of them, songs by number of listeners.

    Args:
        heard: (U, S) 1 where a user listens to a song.
    """

    def __init__(self, heard: csr_array) -> None:
        self.heard, self.of_song = heard, csc_array(heard)
        listeners = heard.sum(0)
        self.others = np.maximum(heard.sum(1) - 1, 0)  # (U,) songs of each user apart from one
        self.chance = float(((listeners / max(1, listeners.sum())) ** 2).sum())
        enough = np.flatnonzero(listeners >= FEWEST_LISTENERS)
        self.songs: Ints = enough[np.argsort(listeners[enough], kind="stable")]

    def bounds(self, deviations: float) -> tuple[Floats, Floats]:
        """Return the agreement above which each song (N,) is suspicious, and its deviations above the usual one."""
        logs = np.log(np.maximum(self._agreement(), np.finfo(np.float64).tiny))
        blocks = np.array_split(logs, max(1, len(logs) // COMPARED))
        usual = np.concatenate([np.full(len(block), np.median(block)) for block in blocks])
        upper = np.concatenate([np.full(len(block), np.quantile(block, ONE_DEVIATION)) for block in blocks])
        deviation = np.maximum(upper - usual, np.finfo(np.float32).eps)
        return np.exp(usual + deviations * deviation), (logs - usual) / deviation

    def agreeing(self, place: int, bound: float) -> Ints:
        """Return the listeners of a song who agree with its others by more than ``bound``, the greatest first."""
        song = self.songs[place]
        users = self.of_song.indices[self.of_song.indptr[song] : self.of_song.indptr[song + 1]]
        rows, others = self.heard[users], self.others[users]
        shared = np.maximum(rows.sum(0) - 1, 0)
        shared[song] = 0
        expected = self.chance * others * (others.sum() - others)
        own = (rows @ shared) / np.maximum(expected, np.finfo(np.float64).tiny)
        order = np.argsort(-own, kind="stable")
        chosen: Ints = users[order[own[order] > bound]]
        return chosen

    def _agreement(self) -> Floats:
        columns = self.of_song[:, self.songs]
        sums, squares = columns.T @ self.others, columns.T @ self.others**2
        expected = self.chance * (sums**2 - squares)
        parts = np.concatenate([self._shared(part) for part in self._parts()])
        agreement: Floats = parts / np.maximum(expected, np.finfo(np.float64).tiny)
        return agreement

    def _parts(self) -> list[Ints]:
        """Cut the songs, in their order, into parts whose counts fit into memory."""
        work = self.of_song[:, self.songs].T @ (self.others + 1)
        rows = np.minimum(work, self.heard.shape[1]).cumsum()
        cuts = np.flatnonzero(np.diff(rows // ENTRIES_AT_ONCE)) + 1
        return np.split(self.songs, cuts)

    def _shared(self, songs: Ints) -> Floats:
        """Return (n,) the sum, over ordered pairs of a song's listeners, of the other songs that they share."""
        together = (self.of_song[:, songs].T @ self.heard).tocsr()
        together.data *= together.data - 1
        own = self.of_song[:, songs].sum(0)
        shared: Floats = together.sum(1) - own * (own - 1)
        return shared


def _matrix(graph: HeteroData) -> csr_array:
    user, song = graph[LISTENS].edge_index.cpu().numpy()
    size = int(graph["user"].num_nodes), int(graph["song"].num_nodes)
    return csr_array((np.ones(len(user)), (user, song)), shape=size)


def _most_suspicious(groups: list[Ints], songs: Ints, allowed: int) -> FakeUsers:
    """Return as many users as are allowed, those of the first groups first, and the songs of these groups."""
    chosen: dict[int, None] = {}
    reached = 0
    for group in groups:
        if len(chosen) >= allowed:
            break
        reached += 1
        chosen.update(dict.fromkeys(group.tolist()))
    return FakeUsers(torch.tensor(list(chosen)[:allowed], dtype=torch.int64), torch.from_numpy(songs[:reached].copy()))

"""The tasks that can be learned from listens, and where their labels come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage

from data.errors import InputError
from data.graph import BY, LISTENS, has_masks
from trainers.multitask.label_metrics import Labelled
from trainers.sampling import KnownPairs, train_pairs


class Examples(NamedTuple):
    """Users (P,), items (P,), which are songs or artists, and targets (P,) in [0, 1]."""

    users: Tensor
    items: Tensor
    targets: Tensor

    def arrays(self) -> Labelled:
        """Return the same as numpy arrays."""
        return Labelled(*(values.cpu().numpy() for values in (self.users, self.items, self.targets.double())))


class Labels(Protocol):
    """Makes the examples of a task from listens."""

    def of(self, pairs: Tensor) -> Examples:
        """Return the examples of user-song pairs (2, P), all of them train pairs of the graph."""
        ...


class ListenLabels:
    """Makes one example from each listen; its target is an attribute of the train edge.

    Args:
        graph: a training graph.
        target: makes targets (E,) from the edges' attributes.
        device: where the pairs are.
    """

    def __init__(self, graph: HeteroData, target: Callable[[EdgeStorage], Tensor], device: torch.device) -> None:
        users, songs = train_pairs(graph)
        self.num_songs = int(graph["song"].num_nodes)
        keys, order = (users * self.num_songs + songs).sort()
        self.keys = keys.to(device)
        self.targets = train_targets(graph, target)[order].to(device)

    def of(self, pairs: Tensor) -> Examples:
        """See ``Labels``."""
        place = torch.searchsorted(self.keys, pairs[0] * self.num_songs + pairs[1])
        return Examples(pairs[0], pairs[1], self.targets[place])


class ArtistLabels:
    """Makes a positive example of a song's artist, and a negative one of an artist that the user does not listen to.

    The negative artist is that of the next pair, so that popular artists are as often wrong as right. If the user
    listens to it too, the negative example is left out; so are songs without artist. Of several artists the first
    counts.
    """

    def __init__(self, graph: HeteroData, device: torch.device) -> None:
        songs, artists = graph[BY].edge_index.cpu().flip(1)  # the first of several is written last
        self.artist = torch.full((int(graph["song"].num_nodes),), -1, dtype=torch.long)
        self.artist[songs] = artists
        self.artist = self.artist.to(device)
        users, songs = train_pairs(graph).to(device)
        listened = torch.stack([users, self.artist[songs]])[:, self.artist[songs] >= 0]
        self.known = KnownPairs(listened, int(graph["artist"].num_nodes))

    def of(self, pairs: Tensor) -> Examples:
        """See ``Labels``; up to two examples a pair."""
        artists = self.artist[pairs[1]]
        users, artists = pairs[0][artists >= 0], artists[artists >= 0]
        others = artists.roll(1)
        wrong = ~self.known.contains(users, others) if len(users) else users > 0
        targets = torch.cat([torch.ones_like(users), torch.zeros_like(users[wrong])])
        return Examples(torch.cat([users, users[wrong]]), torch.cat([artists, others[wrong]]), targets.float())


def train_targets(graph: HeteroData, target: Callable[[EdgeStorage], Tensor]) -> Tensor:
    """Return the targets (E,) of the train edges, in their order; held-out edges have none."""
    targets = target(graph[LISTENS]).float().clamp(0, 1)
    return targets[graph[LISTENS].train_mask] if has_masks(graph) else targets


@dataclass(frozen=True)
class Task:
    """A fact of a listen that a head learns to predict."""

    columns: Mapping[str, str]
    """Columns that the graph's listens need (or ``artist``), and the columns of the log that each is made from."""
    target: Callable[[EdgeStorage], Tensor] | None = None
    """Returns the targets of the listens; None if the examples are about artists."""

    @property
    def item(self) -> str:
        """The kind of item that the task is about: ``song`` or ``artist``."""
        return "song" if self.target else "artist"

    def labels(self, graph: HeteroData, device: torch.device) -> Labels:
        """Return the labels of a training graph that has the columns of the task."""
        return ListenLabels(graph, self.target, device) if self.target else ArtistLabels(graph, device)

    def lacks(self, graph: HeteroData) -> str | None:
        """Return a column that the task needs and the graph lacks; None if it has all."""
        return next((column for column in self.columns if not _has(graph, column)), None)


def _has(graph: HeteroData, column: str) -> bool:
    if column == "artist":
        return BY in graph.edge_types and bool(graph[BY].edge_index.numel())
    return column in graph[LISTENS]


def _completion(listens: EdgeStorage) -> Tensor:
    completion: Tensor = listens.completion
    return completion


def _skip_share(listens: EdgeStorage) -> Tensor:
    share: Tensor = listens.skips / listens.plays.clamp(min=1)
    return share


def _heard_again(listens: EdgeStorage) -> Tensor:
    again: Tensor = listens.plays > 1
    return again


TASKS = {
    "completion": Task({"completion": "ms_played and duration_ms"}, _completion),
    "skip": Task({"skips": "skipped", "plays": "plays"}, _skip_share),
    "relisten": Task({"plays": "plays"}, _heard_again),
    "artist": Task({"artist": "artist_id"}),
}
"""completion: the share of the song that is heard. skip: the share of plays that are skipped. relisten: if the song is
played more than once. artist: if the user listens to the artist. All are learned by cross-entropy."""


def check_columns(tasks: Sequence[str], graph: HeteroData) -> None:
    """Raise InputError if the graph lacks the column of a task."""
    for name in tasks:
        column = TASKS[name].lacks(graph)
        if column is not None:
            raise InputError(
                f"The task '{name}' needs the column '{column}' (in the log: {TASKS[name].columns[column]}), which is "
                f"not there; name it in ingest.columns, or remove '{name}' from training_config.tasks."
            )


def check_targets(tasks: Sequence[str], graph: HeteroData) -> None:
    """Raise InputError if the targets of a task are the same on all train listens of a training graph."""
    for name in tasks:
        target = TASKS[name].target
        targets = torch.zeros(0) if target is None else train_targets(graph, target)
        if len(targets) and bool((targets == targets[0]).all()):
            raise InputError(
                f"The task '{name}' has the same target, {float(targets[0]):g}, on every train listen, so there is "
                f"nothing to predict; remove '{name}' from training_config.tasks."
            )

"""The canary: plant held-out pairs, train a few steps, and see whether anything noticed.

A sample of the graph is trained on three times with one seed: as it is, with pairs planted into what is held out, and,
as a control, with the same pairs planted into train. The first two have to agree to the bit in all that the training
reads and makes. The control has to differ in all of it: otherwise the canary is blind, and its silence means nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, MASKS, NODE_TYPES, set_by, set_listens
from evaluation.audit.edges import edge_attributes
from evaluation.audit.result import Canary

MAX_USERS, MAX_SONGS, MAX_PAIRS = 300, 200, 3_000
"""Size of the sample: it keeps the canary to seconds on a graph of any size.

With so few songs a random negative of a user is often a planted one, so that whoever avoids these is noticed.
"""

MAX_PLANTED = 500
"""Pairs to plant in each part, at most; and at most half of those that nobody listens to, all parts together."""

PLANTED_PARTS: Mapping[str, tuple[bool, bool, bool]] = {
    "val": (False, True, False),
    "test": (False, False, True),
    "none": (False, False, False),
}
"""Where pairs are planted, as values of the three masks; in none: as pairs of new users, or of a gap, are."""

Digests = Mapping[str, str]


class Probe(ABC):
    """Trains on a graph and says by digests what the training read and what it made.

    Evaluation knows no trainers, so whoever runs the canary brings one: ``trainers.leakage_probe.TrainerProbe``.

    Args:
        trainer: a trainer's name, or package.module:Class.
        model_config: the model's keys, without the node counts, which the graph gives.
        training_config: the trainer's keys.
    """

    @abstractmethod
    def __init__(
        self, trainer: str, model_config: Mapping[str, object], training_config: Mapping[str, object]
    ) -> None: ...

    @property
    @abstractmethod
    def trains_on_everything(self) -> bool:
        """Whether the trainer reads held-out pairs on purpose; then no canary is asked."""

    @abstractmethod
    def __call__(self, graph: HeteroData) -> Digests:
        """Name to SHA-256; the same graph gives the same digests, and another train pair changes every one."""


class Planting(NamedTuple):
    """A sample of a graph and the pairs (2, P) to plant in it; ``parts`` says the part of each."""

    sample: HeteroData
    pairs: Tensor
    parts: list[str]

    def planted(self, only: tuple[str, ...] = tuple(PLANTED_PARTS), train: bool = False) -> HeteroData:
        """The sample with the pairs of some parts, where they belong or, as the control, all in train."""
        chosen = [number for number, part in enumerate(self.parts) if part in only]
        masks = [(True, False, False) if train else PLANTED_PARTS[self.parts[number]] for number in chosen]
        return plant(self.sample, self.pairs[:, chosen], torch.tensor(masks).T)


def run_canary(graph: HeteroData, probe: Callable[[HeteroData], Digests], seed: int = 0) -> Canary | None:
    """Train on a sample of a graph with and without planted pairs, and compare.

    Args:
        graph: a training graph with masks.
        probe: trains on a graph and gives digests of what it read and made; see ``Probe``.
        seed: of the sample and of the planted pairs.

    Returns:
        the outcome; None where each user of the sample listens to every song, so that nothing can be planted.
    """
    planting = prepare(graph, seed)
    if not planting.parts:
        return None
    plain, control = probe(planting.sample), probe(planting.planted(train=True))
    held_out = probe(planting.planted())
    same = {name: held_out.get(name) == digest for name, digest in plain.items()}
    changed = {name: control.get(name) != digest for name, digest in plain.items()}
    leaking, repeats = _leaking_parts(planting, probe, plain) if not all(same.values()) else ((), True)
    return Canary(
        passed=all(same.values()) and all(changed.values()),
        says=_says(same, changed, leaking, repeats),
        seed=seed,
        planted=len(planting.parts),
        same_when_held_out=same,
        changed_in_train=changed,
        leaking_parts=leaking,
        **_sizes(planting.sample),
    )


def prepare(graph: HeteroData, seed: int) -> Planting:
    """A sample of the graph, and pairs of its users and songs that it has no edge for."""
    generator = np.random.default_rng(seed)
    sample = sample_graph(graph, generator)
    pairs = _absent_pairs(sample, generator)
    each = min(MAX_PLANTED, pairs.shape[1] // (2 * len(PLANTED_PARTS)))
    return Planting(sample, pairs[:, : each * len(PLANTED_PARTS)], list(PLANTED_PARTS) * each)


def sample_graph(graph: HeteroData, generator: np.random.Generator) -> HeteroData:
    """Some users who have train pairs, the songs that most of them listen to, the artists; nodes numbered anew.

    Attributes of nodes and edges go along, other edge types do not: a model is never shown them.
    """
    kept, by = _sampled_edges(graph, generator), graph[BY].edge_index.cpu()
    user, song = graph[LISTENS].edge_index.cpu()[:, kept]
    by = by[:, torch.isin(by[0], song)]
    nodes = {"user": user.unique(), "song": song.unique(), "artist": by[1].unique()}
    sample = HeteroData()
    for kind in NODE_TYPES:
        _copy_nodes(graph, sample, kind, nodes[kind])
    pairs = torch.stack([torch.searchsorted(nodes["user"], user), torch.searchsorted(nodes["song"], song)])
    _set_pairs(sample, graph, pairs, kept)
    set_by(sample, torch.stack([torch.searchsorted(nodes["song"], by[0]), torch.searchsorted(nodes["artist"], by[1])]))
    return sample


def plant(sample: HeteroData, pairs: Tensor, masks: Tensor) -> HeteroData:
    """The graph with further pairs (2, P) and their masks (3, P); each has the attributes of some train edge.

    Held-out edges of the pipeline carry zeros. The planted ones carry something, in train as in the held-out parts:
    so nothing but the masks tells the control from the rest, and a reader of attributes notices too.
    """
    store, grown = sample[LISTENS], HeteroData()
    count = store.edge_index.shape[1]
    like = store.train_mask.nonzero().squeeze(1)
    source = torch.cat([torch.arange(count), like[torch.arange(pairs.shape[1]) % len(like)]])
    together = torch.cat([store.edge_index, pairs], dim=1)
    order = (together[0] * int(sample["song"].num_nodes) + together[1]).argsort(stable=True)
    for kind in NODE_TYPES:
        _copy_nodes(sample, grown, kind, torch.arange(int(sample[kind].num_nodes)))
    _set_pairs(grown, sample, together[:, order], source[order])
    for name, planted in zip(MASKS, masks, strict=True):
        grown[LISTENS][name] = torch.cat([store[name], planted])[order]
    set_by(grown, sample[BY].edge_index.clone())
    return grown


def _leaking_parts(
    planting: Planting, probe: Callable[[HeteroData], Digests], plain: Digests
) -> tuple[tuple[str, ...], bool]:
    """The parts whose pairs alone change something, and whether the probe repeats itself at all."""
    leaking = tuple(part for part in PLANTED_PARTS if probe(planting.planted(only=(part,))) != plain)
    return leaking, probe(planting.sample) == plain


def _says(same: Mapping[str, bool], changed: Mapping[str, bool], leaking: tuple[str, ...], repeats: bool) -> str:
    if not repeats:
        return "The canary cannot tell: two trainings on one graph with one seed differ; seed what is drawn at random."
    if not all(same.values()):
        what = ", ".join(name for name, is_same in same.items() if not is_same)
        where = ", ".join(leaking) or "all together"
        return f"Planted held-out pairs changed the training ({what}; planted in: {where})."
    if not all(changed.values()):
        what = ", ".join(name for name, differs in changed.items() if not differs)
        return f"The canary is blind: the same pairs planted in train did not change {what}."
    return "Planted held-out pairs changed nothing to the bit; the same pairs in train changed everything."


def _sampled_edges(graph: HeteroData, generator: np.random.Generator) -> Tensor:
    """(P,) sorted places of the edges to keep: of some users with train pairs, of their most common songs."""
    store = graph[LISTENS]
    masks = torch.stack([store[name].cpu() for name in MASKS])
    user, song = store.edge_index.cpu()
    trained = user[masks[0]].unique().numpy()
    users = torch.from_numpy(generator.permutation(trained)[:MAX_USERS])
    of_users = torch.isin(user, users) & masks.any(0)
    songs = song[of_users].bincount().argsort(descending=True, stable=True)[:MAX_SONGS]
    kept = (of_users & torch.isin(song, songs)).nonzero().squeeze(1).numpy()
    return torch.from_numpy(np.sort(generator.permutation(kept)[:MAX_PAIRS]))


def _absent_pairs(sample: HeteroData, generator: np.random.Generator) -> Tensor:
    """(2, P) users and songs without an edge, in random order."""
    num_users, num_songs = (int(sample[kind].num_nodes) for kind in ("user", "song"))
    user, song = sample[LISTENS].edge_index.numpy()
    absent = np.ones(num_users * num_songs, dtype=bool)
    absent[user * num_songs + song] = False
    chosen = generator.permutation(np.flatnonzero(absent))
    return torch.from_numpy(np.stack([chosen // num_songs, chosen % num_songs]))


def _copy_nodes(graph: HeteroData, target: HeteroData, kind: str, kept: Tensor) -> None:
    size = int(graph[kind].num_nodes)
    for name, value in graph[kind].items():
        of_each = isinstance(value, Tensor) and value.dim() and len(value) == size
        target[kind][name] = value.cpu()[kept] if of_each else value
    target[kind].num_nodes = len(kept)


def _set_pairs(target: HeteroData, graph: HeteroData, pairs: Tensor, kept: Tensor) -> None:
    """Give ``target`` the pairs with the attributes and masks of the edges ``kept`` of ``graph``."""
    store = graph[LISTENS]
    attributes = {name: values.cpu()[kept] for name, values in edge_attributes(store, store.edge_index.shape[1])}
    set_listens(target, pairs, attributes, store.get("half_life_days", 0.0))
    for name in MASKS:
        target[LISTENS][name] = store[name].cpu()[kept]


def _sizes(sample: HeteroData) -> dict[str, int]:
    users, songs = (int(sample[kind].num_nodes) for kind in ("user", "song"))
    return {"users": users, "songs": songs, "pairs": sample[LISTENS].edge_index.shape[1]}

"""The canary: plant held-out pairs, train a few steps, and check if they changed anything.

The trainer trains three times on a sample of the graph, with one seed: on the sample as it is, with pairs planted into
the held-out parts, and, as a control, with the same pairs planted into train. The first two trainings must read and
make the same to the bit. The control must differ in everything: otherwise the canary is blind and proves nothing.
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
"""Maximum size of the sample, so that the canary takes seconds on a graph of any size.

With so few songs a random negative of a user is often a planted pair, so a trainer that avoids these is caught.
"""

MAX_PLANTED = 500
"""Maximum number of pairs to plant in each part; all parts together get at most half of the pairs without an edge."""

PLANTED_PARTS: Mapping[str, tuple[bool, bool, bool]] = {
    "val": (False, True, False),
    "test": (False, False, True),
    "none": (False, False, False),
}
"""Parts to plant pairs in, as values of the three masks. Pairs of new users or of a gap are in none of the masks."""

Digests = Mapping[str, str]


class Probe(ABC):
    """Trains on a graph, and returns digests of what the training read and made.

    Evaluation may not import trainers, so the caller of the canary brings ``trainers.leakage_probe.TrainerProbe``.

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
        """True if the trainer reads held-out pairs on purpose; then no canary is run."""

    @abstractmethod
    def __call__(self, graph: HeteroData) -> Digests:
        """Return name to SHA-256. The same graph gives the same digests; another train pair changes all of them."""


class Planting(NamedTuple):
    """A sample of a graph, the pairs (2, P) to plant in it, and the part of each pair."""

    sample: HeteroData
    pairs: Tensor
    parts: list[str]

    def planted(self, only: tuple[str, ...] = tuple(PLANTED_PARTS), train: bool = False) -> HeteroData:
        """Return the sample with the pairs of the parts ``only``, each in its part or, as the control, all in train."""
        chosen = [number for number, part in enumerate(self.parts) if part in only]
        masks = [(True, False, False) if train else PLANTED_PARTS[self.parts[number]] for number in chosen]
        return plant(self.sample, self.pairs[:, chosen], torch.tensor(masks).T)


def run_canary(graph: HeteroData, probe: Callable[[HeteroData], Digests], seed: int = 0) -> Canary | None:
    """Train on a sample of a graph with and without planted pairs, and compare.

    Args:
        graph: a training graph with masks.
        probe: trains on a graph and returns digests of what it read and made; see ``Probe``.
        seed: seed of the sample and of the planted pairs.

    Returns:
        the outcome; None if each user of the sample listens to every song, so that nothing can be planted.
    """
    planting = choose_pairs_to_plant(graph, seed)
    if not planting.parts:
        return None
    plain, control = probe(planting.sample), probe(planting.planted(train=True))
    held_out = probe(planting.planted())
    same = {name: held_out.get(name) == digest for name, digest in plain.items()}
    changed = {name: control.get(name) != digest for name, digest in plain.items()}
    leaking, repeats = _leaking_parts(planting, probe, plain) if not all(same.values()) else ((), True)
    return Canary(
        passed=all(same.values()) and all(changed.values()),
        says=_describe(same, changed, leaking, repeats),
        seed=seed,
        users=int(planting.sample["user"].num_nodes),
        songs=int(planting.sample["song"].num_nodes),
        pairs=planting.sample[LISTENS].edge_index.shape[1],
        planted=len(planting.parts),
        same_when_held_out=same,
        changed_in_train=changed,
        leaking_parts=leaking,
    )


def choose_pairs_to_plant(graph: HeteroData, seed: int) -> Planting:
    """Sample the graph, and choose pairs of the sample's users and songs that have no edge."""
    generator = np.random.default_rng(seed)
    sample = sample_graph(graph, generator)
    pairs = _absent_pairs(sample, generator)
    each = min(MAX_PLANTED, pairs.shape[1] // (2 * len(PLANTED_PARTS)))
    return Planting(sample, pairs[:, : each * len(PLANTED_PARTS)], list(PLANTED_PARTS) * each)


def sample_graph(graph: HeteroData, generator: np.random.Generator) -> HeteroData:
    """Keep some users with train pairs, the songs that most of them listen to, and their artists; renumber the nodes.

    Attributes of nodes and edges are copied. Other edge types are not: a model never sees them.
    """
    kept, by = _sample_edges(graph, generator), graph[BY].edge_index.cpu()
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
    """Add pairs (2, P) with their masks (3, P) to a graph; each gets the attributes of a train edge.

    The pipeline gives zeros to held-out edges. Planted pairs have attributes in every part, so that the control differs
    from the other trainings by the masks only, and a trainer that reads attributes is caught too.
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
    """Return the parts whose pairs alone change the digests, and True if the plain training gives them again."""
    leaking = tuple(part for part in PLANTED_PARTS if probe(planting.planted(only=(part,))) != plain)
    return leaking, probe(planting.sample) == plain


def _describe(same: Mapping[str, bool], changed: Mapping[str, bool], leaking: tuple[str, ...], repeats: bool) -> str:
    """Return the outcome in a sentence."""
    if not repeats:
        return "The canary cannot tell: two trainings on one graph with one seed differ; seed what is drawn at random."
    if not all(same.values()):
        differing = ", ".join(name for name, is_same in same.items() if not is_same)
        parts = ", ".join(leaking) or "all together"
        return f"Planted held-out pairs changed the training ({differing}; planted in: {parts})."
    if not all(changed.values()):
        unchanged = ", ".join(name for name, differs in changed.items() if not differs)
        return f"The canary is blind: the same pairs planted in train did not change {unchanged}."
    return "Planted held-out pairs changed nothing, to the bit; the same pairs in train changed everything."


def _sample_edges(graph: HeteroData, generator: np.random.Generator) -> Tensor:
    """Return the sorted indices (P,) of the edges to keep: of some users with train pairs, and their common songs."""
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
    """Return all pairs (2, P) of users and songs without an edge, in random order."""
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

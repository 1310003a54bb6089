"""The canary with probes that read what a good trainer reads, or something held out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, MASKS, graph_digest, message_graph
from evaluation.audit.auditor import NOTHING_TO_PLANT, audit_graph
from evaluation.audit.planting import PLANTED_PARTS, Digests, choose_pairs_to_plant, run_canary, sample_graph
from evaluation.audit.result import Audit, Canary


def honest(graph: HeteroData) -> Digests:
    return {"messages": graph_digest(message_graph(graph))}


def reading(mask: Callable[[HeteroData], Tensor]) -> Callable[[HeteroData], Digests]:
    """A probe that reads the train edges, and those of another mask."""

    def probe(graph: HeteroData) -> Digests:
        store = graph[LISTENS]
        return {"pairs": str(store.edge_index[:, store.train_mask | mask(graph)].tolist())}

    return probe


def test_an_honest_training_is_clean_and_the_control_sees(made) -> None:
    found = run_canary(made.graph, honest)
    assert found.passed
    assert found.same_when_held_out == {"messages": True}
    assert found.changed_in_train == {"messages": True}
    assert found.says == (
        "Planted held-out pairs changed nothing, to the bit; the same pairs in train changed everything."
    )
    absent = found.users * found.songs - found.pairs
    assert found.planted == 3 * (absent // 6) > 300


@pytest.mark.parametrize(
    ("part", "mask"),
    [
        ("val", lambda graph: graph[LISTENS].val_mask),
        ("test", lambda graph: graph[LISTENS].test_mask),
        ("none", lambda graph: ~(graph[LISTENS].val_mask | graph[LISTENS].test_mask)),
    ],
)
def test_a_reader_of_a_held_out_part_is_caught_and_the_part_named(made, part: str, mask) -> None:
    """Part none: a trainer that takes for train whatever is not held out reads the pairs of new users."""
    found = run_canary(made.graph, reading(mask))
    assert not found.passed
    assert found.leaking_parts == (part,)
    assert found.says == f"Planted held-out pairs changed the training (pairs; planted in: {part})."


def test_a_reader_of_the_attributes_alone_is_caught(made) -> None:
    def probe(graph: HeteroData) -> Digests:
        return {**honest(graph), "plays": str(float(graph[LISTENS].plays.sum()))}

    found = run_canary(made.graph, probe)
    assert found.same_when_held_out == {"messages": True, "plays": False}
    assert found.leaking_parts == ("val", "test", "none")


def test_a_canary_that_sees_nothing_is_no_proof(made) -> None:
    found = run_canary(made.graph, lambda graph: {**honest(graph), "weights": "always the same"})
    assert not found.passed
    assert found.changed_in_train == {"messages": True, "weights": False}
    assert found.says == "The canary is blind: the same pairs planted in train did not change weights."


def test_a_training_that_does_not_repeat_itself_cannot_be_judged(made) -> None:
    number = itertools.count()
    found = run_canary(made.graph, lambda graph: {"weights": str(next(number))})
    assert not found.passed
    assert found.says == (
        "The canary cannot tell: two trainings on one graph with one seed differ; seed what is drawn at random."
    )


def test_a_canary_counts_in_the_verdict(made) -> None:
    found = run_canary(made.graph, reading(lambda graph: graph[LISTENS].test_mask))
    audit = Audit.of((), found)
    assert not audit.passed
    assert audit.refusal() == (
        "The audit refuses to train: Planted held-out pairs changed the training (pairs; planted in: test)."
    )


def test_where_everyone_listens_to_everything_nothing_can_be_planted(make) -> None:
    made = make(num_users=3, num_songs=3, num_rows=2_000)
    assert made.graph[LISTENS].edge_index.shape[1] == 9
    assert run_canary(made.graph, honest) is None

    class Honest:
        trains_on_everything = False

        def __call__(self, graph: HeteroData) -> Digests:
            return honest(graph)

    assert NOTHING_TO_PLANT in audit_graph(made.graph, probe=Honest()).cannot_say


@pytest.mark.parametrize("strategy", ["random", "temporal with a gap", "column"])
def test_pairs_are_planted_between_nodes_that_had_none(make, strategy: str) -> None:
    planting = choose_pairs_to_plant(make(strategy).graph, seed=1)
    before = set(map(tuple, planting.sample[LISTENS].edge_index.T.tolist()))
    planted = set(map(tuple, planting.pairs.T.tolist()))
    assert len(planted) == len(planting.parts)
    assert not before & planted
    assert len({planting.parts.count(part) for part in PLANTED_PARTS}) == 1


def test_what_is_planted_lies_where_it_was_said_and_moves_nothing_else(made) -> None:
    planting = choose_pairs_to_plant(made.graph, seed=0)
    each = len(planting.parts) // 3
    sample, grown, control = planting.sample, planting.planted(), planting.planted(train=True)
    assert torch.equal(grown[LISTENS].edge_index, control[LISTENS].edge_index)
    assert torch.equal(grown[LISTENS].weight, control[LISTENS].weight)
    assert [int(grown[LISTENS][mask].sum() - sample[LISTENS][mask].sum()) for mask in MASKS] == [0, each, each]
    assert [int(control[LISTENS][mask].sum() - sample[LISTENS][mask].sum()) for mask in MASKS] == [3 * each, 0, 0]
    assert graph_digest(message_graph(grown)) == graph_digest(message_graph(sample))
    keys = grown[LISTENS].edge_index[0] * sample["song"].num_nodes + grown[LISTENS].edge_index[1]
    assert bool((keys.diff() > 0).all())


def test_a_sample_keeps_who_listens_to_what_and_who_made_it(made) -> None:
    graph = made.graph
    graph["song"].tempo = torch.arange(graph["song"].num_nodes) / 7
    sample = sample_graph(graph, np.random.default_rng(3))

    def facts(of: HeteroData) -> set[tuple]:
        user, song = of[LISTENS].edge_index
        columns = (of["user"].id_hash[user], of["song"].id_hash[song], of["song"].tempo[song], of[LISTENS].weight)
        masks = torch.stack([of[LISTENS][mask] for mask in MASKS]).T
        return set(zip(*(column.tolist() for column in columns), map(tuple, masks.tolist()), strict=True))

    def made_by(of: HeteroData) -> set[tuple]:
        song, artist = of[BY].edge_index
        return set(zip(of["song"].id_hash[song].tolist(), of["artist"].id_hash[artist].tolist(), strict=True))

    assert facts(sample) == facts(graph)
    assert made_by(sample) <= made_by(graph)


def test_a_sample_is_bounded_whatever_the_size_of_the_graph(make) -> None:
    graph = make(num_users=400, num_songs=300, num_rows=9_000).graph
    sample = sample_graph(graph, np.random.default_rng(0))
    assert 200 < sample["user"].num_nodes <= 300
    assert sample["song"].num_nodes == 200
    assert 2_000 < sample[LISTENS].edge_index.shape[1] <= 3_000
    assert graph_digest(sample) == graph_digest(sample_graph(graph, np.random.default_rng(0)))
    assert graph_digest(sample) != graph_digest(sample_graph(graph, np.random.default_rng(1)))


def test_an_audit_is_read_as_it_was_written(made, tmp_path) -> None:
    audit = audit_graph(made.graph, made.listens)
    audit = audit.model_copy(update={"canary": run_canary(made.graph, honest)})
    audit.write(tmp_path / "audit.json")
    assert Audit.read(tmp_path / "audit.json") == audit
    assert isinstance(Audit.read(tmp_path / "audit.json").canary, Canary)

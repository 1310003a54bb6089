"""A model that starts from another one's weights must not inherit what is held out now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS
from data.split import SplitConfig
from data.training_graph import split_graph
from evaluation.audit.auditor import audit_graph
from evaluation.audit.seen_pairs import check_warm_start


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """What a bundle says of the listens it knows: ``bundle(graph, order=..., in_sample=True)``."""

    def write(graph: HeteroData, reverse: bool = False, **facts: Any) -> Path:
        """With ``reverse`` the source numbered its nodes the other way round, as another night may."""
        store = graph[LISTENS]
        nodes = store.edge_index.clone()
        for row, kind in enumerate(("user", "song")):
            hashes = graph[kind].id_hash
            if reverse:
                hashes, nodes[row] = hashes.flip(0), len(hashes) - 1 - nodes[row]
            pq.write_table(pa.table({"id_hash": hashes.numpy()}), tmp_path / f"{kind}s.parquet")
        part = np.select([store.train_mask, store.val_mask], ["train", "val"], "test")
        seen = pa.table({"user": nodes[0].numpy(), "song": nodes[1].numpy(), "part": part})
        pq.write_table(seen, tmp_path / "seen.parquet")
        manifest = {"facts": {"in_sample": False, "seen_splits": [{}], **facts}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path

    return write


@pytest.fixture
def other(made) -> HeteroData:
    """The same listens under another salt: other pairs are held out."""
    return split_graph(made.whole, SplitConfig(salt=1), made.listens)


def overlap(first: HeteroData, mask: str, second: HeteroData, other_mask: str) -> int:
    return int((first[LISTENS][mask] & second[LISTENS][other_mask]).sum())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_model_of_the_same_split_has_seen_nothing(made, bundle, reverse: bool) -> None:
    found = check_warm_start(made.graph, bundle(made.graph, reverse))
    assert found.passed
    assert found.says == "The model that this one starts from has seen no pair that is held out now."


@pytest.mark.parametrize("reverse", [False, True])
def test_a_model_of_another_split_has_seen_held_out_pairs(made, other, bundle, reverse: bool) -> None:
    expected = sum(
        overlap(other, then, made.graph, now)
        for then, now in (("train_mask", "val_mask"), ("train_mask", "test_mask"), ("val_mask", "test_mask"))
    )
    found = check_warm_start(made.graph, bundle(other, reverse))
    assert (found.passed, found.found) == (False, expected)
    assert found.says == f"Pairs held out now that the model which this one starts from has seen: {expected}."


@pytest.mark.parametrize("fact", ["in_sample", "refit"])
def test_a_model_that_was_trained_on_everything_has_seen_its_test_pairs(made, bundle, fact: str) -> None:
    found = check_warm_start(made.graph, bundle(made.graph, **{fact: True}))
    assert found.found == int((~made.graph[LISTENS].train_mask).sum())


@pytest.mark.parametrize("name", ["evaluated_model.safetensors", "twin_model.safetensors"])
def test_of_a_refitted_model_the_evaluated_model_counts_if_it_is_there(made, bundle, name: str) -> None:
    """Also under the name that earlier releases gave its file."""
    folder = bundle(made.graph, refit=True)
    (folder / name).touch()
    assert check_warm_start(made.graph, folder).passed


def test_a_log_that_grew_keeps_held_out_pairs_held_out(make, bundle, make_listens, make_graph) -> None:
    """The random split hashes ids, so tomorrow's split agrees with today's on the pairs of both."""
    today = make().graph
    grown = make_listens(num_users=60, num_songs=40, num_rows=900)
    grown = pa.concat_tables([grown, make_listens()]).combine_chunks()
    pairs = (
        grown.group_by(["user", "song", "day"])
        .aggregate([("plays", "max")])
        .sort_by([("user", "ascending"), ("song", "ascending"), ("day", "ascending")])
    )
    pairs = pairs.rename_columns(["user", "song", "day", "plays"])
    whole = make_graph(num_users=60, num_songs=40, table=pairs)
    tomorrow = split_graph(whole, SplitConfig(), pairs)
    found = check_warm_start(tomorrow, bundle(today))
    came_back = int((today[LISTENS].train_mask & moved(today, tomorrow)).sum())
    assert found.found == came_back


def moved(today: HeteroData, tomorrow: HeteroData) -> torch.Tensor:
    """(E,) today's pairs that tomorrow holds out."""
    store = tomorrow[LISTENS]
    held_out = set(map(tuple, store.edge_index[:, ~store.train_mask].T.tolist()))
    return torch.tensor([tuple(pair) in held_out for pair in today[LISTENS].edge_index.T.tolist()])


def test_users_and_songs_that_are_gone_do_not_matter(made, other, bundle) -> None:
    folder = bundle(other)
    ids = pq.read_table(folder / "users.parquet")["id_hash"].to_numpy()
    pq.write_table(pa.table({"id_hash": ids + 10**15}), folder / "users.parquet")
    assert check_warm_start(made.graph, folder).passed


def test_the_audit_refuses_such_a_start(made, other, bundle) -> None:
    found = audit_graph(made.graph, made.listens, warmed_from=bundle(other, seen_splits=[{}, {}]))
    assert "which this one starts from has seen" in found.refusal()
    assert "The earlier model was itself warmed from 1 more, whose pairs are not in its bundle." in found.cannot_say


@pytest.mark.parametrize("name", ["seen.parquet", "users.parquet", "manifest.json"])
def test_a_folder_that_is_no_whole_bundle_is_named(made, bundle, name: str) -> None:
    folder = bundle(made.graph)
    (folder / name).write_text("damaged")
    with pytest.raises(InputError) as refused:
        check_warm_start(made.graph, folder)
    assert str(refused.value) == (
        f"{folder}/{name} cannot be read; give the folder of a bundle, as `python -m registry show` names it."
    )


def test_a_graph_without_id_hashes_is_refused(made, bundle) -> None:
    folder = bundle(made.graph)
    del made.graph["song"].id_hash
    with pytest.raises(InputError, match="The song nodes of the graph have no id_hash"):
        check_warm_start(made.graph, folder)

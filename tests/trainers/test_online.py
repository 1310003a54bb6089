"""Going on instead of beginning anew: what an update learns, when it is not enough, and what it may not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch_geometric.data import HeteroData

from data.cutoff import day_to_date
from data.errors import InputError
from data.graph import LISTENS
from data.split import SplitConfig
from data.training_graph import split_graph
from data.vocabulary import id_hash
from trainers.online import OnlineTrainer


@pytest.fixture
def nights(make_listens, make_graph) -> Callable[..., HeteroData]:
    """``nights(20)``: the graph of the first 20 days of one log, its last days held out."""
    table = make_listens(num_users=40, num_songs=30, num_rows=900, num_days=50)
    days = np.array(table["day"]) - min(table["day"].to_pylist())

    def until(day: int, strategy: str = "temporal") -> HeteroData:
        rows = table.filter(pa.array(days < day)).combine_chunks()
        graph = make_graph(num_users=40, num_songs=30, table=rows)
        return split_graph(graph, SplitConfig(strategy=strategy), rows)

    return until


@pytest.fixture
def online(make_trainer) -> Callable[..., OnlineTrainer]:
    def make(folder: Path | None = None, **training) -> OnlineTrainer:
        return make_trainer("online", **({"output_dir": folder} if folder else {}), max_new_share=1.0, **training)

    return make


def train_pairs_of(graph: HeteroData) -> set[tuple[int, int]]:
    store = graph[LISTENS]
    return set(map(tuple, store.edge_index[:, store.train_mask].T.tolist()))


def test_an_update_learns_the_pairs_that_are_new_and_replays_as_many_old_ones(online, nights) -> None:
    trainer, before, after = online(), nights(30), nights(40)
    assert "new_pairs" not in trainer.train(before, 2)["history"][0]
    record = trainer.update(after, num_epochs=1)["history"][0]
    new = len(train_pairs_of(after) - train_pairs_of(before))
    assert (record["new_pairs"], record["replayed_pairs"]) == (new, new)
    assert trainer.num_updates == 1


@pytest.mark.parametrize(("ratio", "replayed"), [(0.0, 0.0), (0.5, 0.5)])
def test_the_ratio_says_how_many_are_replayed(online, nights, ratio, replayed) -> None:
    trainer = online(replay_ratio=ratio)
    trainer.train(nights(30), 1)
    record = trainer.update(nights(40), num_epochs=1)["history"][0]
    assert record["replayed_pairs"] == round(replayed * record["new_pairs"])


def test_an_update_goes_on_from_the_weights(online, nights, tmp_path) -> None:
    trainer = online()
    trainer.train(nights(30), 8)
    updated = trainer.update(nights(31), num_epochs=1)["history"][0]
    begun = online(tmp_path / "anew").train(nights(31), 1)["history"][0]
    assert updated["loss"] < begun["loss"]


def test_events_say_what_to_learn(online, nights) -> None:
    """Only what is a train edge of tonight's graph: the log of a night holds pairs that are held out, too."""
    trainer, graph = online(), nights(40)
    trainer.train(nights(30), 1)
    users, songs = ([f"{kind}-{node}" for node in range(graph[kind].num_nodes)] for kind in ("user", "song"))
    for kind, names in (("user", users), ("song", songs)):
        for of in (trainer.eval_graph, graph):
            of[kind].id_hash = torch.tensor([id_hash(name) for name in names])
    heard = graph[LISTENS].edge_index[:, :50].T.tolist()
    events = pa.table(
        {"user_id": [users[u] for u, _ in heard] + ["nobody"], "track_id": [songs[s] for _, s in heard] + ["x"]}
    )
    record = trainer.update(graph, pa.concat_tables([events, events]), num_epochs=1)["history"][0]
    assert record["new_pairs"] == len({tuple(pair) for pair in heard} & train_pairs_of(graph))


def test_events_without_ids_are_refused(online, nights) -> None:
    trainer = online()
    trainer.train(nights(30), 1)
    with pytest.raises(InputError, match="new_events has no column 'track_id', only user_id"):
        trainer.update(nights(31), pa.table({"user_id": ["a"]}))


def test_a_night_with_nothing_new_replays_a_batch(online, nights) -> None:
    trainer = online()
    trainer.train(nights(30), 1)
    record = trainer.update(nights(30), num_epochs=1)["history"][0]
    assert (record["new_pairs"], record["replayed_pairs"]) == (0, 64)


def test_users_and_songs_come_and_go(online, make_listens, make_graph) -> None:
    table, cut = (
        make_listens(num_users=45, num_songs=33),
        SplitConfig(
            strategy="temporal", val_from=day_to_date(20_030).isoformat(), test_from=day_to_date(20_040).isoformat()
        ),
    )
    users, songs = (np.array(table[name]) for name in ("user", "song"))
    trainer = online()
    for night, (num_users, num_songs) in enumerate([(40, 30), (30, 24), (45, 33)]):
        rows = table.filter(pa.array((users < num_users) & (songs < num_songs))).combine_chunks()
        graph = split_graph(make_graph(num_users=num_users, num_songs=num_songs, table=rows), cut, rows)
        (trainer.update if night else trainer.train)(graph, num_epochs=1)
        assert trainer.score(graph)(torch.arange(num_users)).shape == (num_users, num_songs)


def test_a_bundle_is_gone_on_from_as_the_model_in_memory_is(as_bundle, online, nights, tmp_path) -> None:
    trainer = online(tmp_path / "first")
    trainer.train(nights(30), 2)
    bundle = as_bundle(trainer, nights(30), tmp_path / "bundle")
    other = online(tmp_path / "second", warm_start=str(bundle))
    told = other.train(nights(31), 2)["history"], trainer.update(nights(31), num_epochs=2)["history"]
    assert told[0] == told[1]
    assert torch.equal(other.model.state_dict()["table"], trainer.model.state_dict()["table"])


def test_without_an_earlier_model_it_trains_as_advanced_does(online, make_trainer, nights, tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        ours = online(tmp_path / "a").train(nights(30), 2)["history"]
    assert ours == make_trainer("advanced", tmp_path / "b").train(nights(30), 2)["history"]
    assert "A full training: there is no earlier model to go on from." in caplog.messages


def test_after_a_week_of_updates_the_training_is_full(as_bundle, online, nights, tmp_path, caplog) -> None:
    trainer = online(tmp_path / "first")
    trainer.train(nights(30), 1)
    bundle = as_bundle(trainer, nights(30), tmp_path / "bundle", seen_splits=[{}] * 7)
    with caplog.at_level("INFO"):
        record = online(tmp_path / "second", warm_start=str(bundle)).train(nights(31), 1)["history"][0]
    assert "new_pairs" not in record
    assert "A full training: the earlier model was updated 6 times since its last one (max_updates)." in caplog.messages


def test_updates_in_memory_are_counted_too(online, nights) -> None:
    trainer = online(max_updates=2)
    trainer.train(nights(30), 1)
    histories = [trainer.update(nights(31 + night), num_epochs=1)["history"][0] for night in range(4)]
    assert ["new_pairs" in record for record in histories] == [True, True, False, True]


def test_a_log_that_drifted_is_trained_on_anew(online, make_trainer, nights, caplog) -> None:
    trainer = make_trainer("online", max_new_share=0.1)
    trainer.train(nights(20), 1)
    with caplog.at_level("INFO"):
        record = trainer.update(nights(50), num_epochs=1)["history"][0]
    assert "new_pairs" not in record
    assert any("of the train pairs are new, more than 10% (max_new_share)" in message for message in caplog.messages)


def test_a_full_training_does_not_name_an_earlier_model(as_bundle, online, nights, tmp_path) -> None:
    trainer = online(tmp_path / "first")
    trainer.train(nights(30), 1)
    bundle = as_bundle(trainer, nights(30), tmp_path / "bundle", seen_splits=[{}] * 7)
    for limit, names_it in ((6, False), (7, True)):
        other = online(tmp_path / f"limit-{limit}", warm_start=str(bundle), max_updates=limit)
        other.train(nights(31), 1)
        saved = json.loads((other.save_model(tmp_path / f"model-{limit}") / "config.json").read_text())
        assert ("warmed_from" in saved) == names_it


def test_a_graph_that_holds_out_what_was_learned_is_refused(online, nights) -> None:
    trainer = online()
    trainer.train(nights(30), 1)
    with pytest.raises(InputError, match="starts from has seen"):
        trainer.update(nights(30, strategy="random"), num_epochs=1)


def test_there_has_to_be_a_model_to_update(online, nights) -> None:
    with pytest.raises(InputError, match="There is no model to update: call train"):
        online().update(nights(30))


def test_the_refit_of_an_update_is_an_update_on_all_listens(as_bundle, online, nights, tmp_path) -> None:
    first = online(tmp_path / "first")
    first.train(nights(30), 1)
    bundle = as_bundle(first, nights(30), tmp_path / "bundle")
    first = online(tmp_path / "first", warm_start=str(bundle))
    results = first.train(nights(40), 3)
    whole = nights(40)
    for mask in ("train_mask", "val_mask", "test_mask"):
        del whole[LISTENS][mask]
    refit = online(tmp_path / "refit", warm_start=str(bundle))
    history = refit.refit(whole, OnlineTrainer.chosen_history(results["history"], results))["history"]
    learned = len(train_pairs_of(nights(30)))
    assert history[0]["new_pairs"] == whole[LISTENS].edge_index.shape[1] - learned

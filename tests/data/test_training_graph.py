"""data/training_graph.py: the masks divide the edges, and nothing held out can be read from the training graph."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.graph import LISTENS, REV_LISTENS, build_graph, graph_digest, load_graph, message_graph, save_graph
from data.split import SplitConfig
from data.training_graph import EDGE_ATTRIBUTES, split_counts, split_days, split_digest, split_graph

FIRST_DAY = 20_000
TEMPORAL = SplitConfig(
    strategy="temporal",
    val_from=date(1970, 1, 1) + timedelta(FIRST_DAY + 35),
    test_from=date(1970, 1, 1) + timedelta(FIRST_DAY + 42),
)


def with_column(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return table.drop_columns([name] if name in table.column_names else []).append_column(name, pa.array(values))


@pytest.fixture
def listens(make_listens) -> pa.Table:
    table = make_listens()
    pair = table["user"].to_numpy() * 1_000 + table["song"].to_numpy()
    return with_column(table, "split", np.array(["train", "train", "valid", "test"])[pair % 4])


@pytest.fixture
def build(tmp_path, make_listens_folder):
    def build(table: pa.Table):
        return build_graph(make_listens_folder(tmp_path / "listens", table))

    return build


@pytest.mark.parametrize(
    "config",
    [SplitConfig(), SplitConfig(strategy="leave_last_out"), SplitConfig(strategy="column"), TEMPORAL],
    ids=lambda config: config.strategy,
)
class TestEveryStrategy:
    def test_masks_are_disjoint_and_complete_but_for_new_users(self, config, listens, build):
        store = split_graph(build(listens), config, listens)[LISTENS]
        parts = store.train_mask.int() + store.val_mask.int() + store.test_mask.int()
        assert parts.max() == 1
        assert (parts == 0).sum() == store.new_user_val_index.size(1) + store.new_user_test_index.size(1)
        assert min(store.train_mask.sum(), store.test_mask.sum()) > 0

    def test_held_out_edges_carry_zeros(self, config, listens, build):
        divided = split_graph(build(listens), config, listens)
        store = divided[LISTENS]
        for name in EDGE_ATTRIBUTES:
            assert not store[name][~store.train_mask].any()
            assert store[name][store.train_mask].any()
        assert torch.equal(divided[REV_LISTENS].weight, store.weight)

    def test_the_graph_that_was_given_is_not_changed(self, config, listens, build):
        graph = build(listens)
        before = graph_digest(graph)
        divided = split_graph(graph, config, listens)
        divided[LISTENS].edge_index.zero_()
        divided[LISTENS].weight.zero_()
        assert graph_digest(graph) == before

    def test_the_same_split_has_the_same_bytes_and_digest(self, config, listens, build, tmp_path):
        first, second = (split_graph(build(listens), config, listens) for _ in range(2))
        for name, graph in (("a", first), ("b", second)):
            (tmp_path / name).mkdir()
            save_graph(graph, tmp_path / name / "training_graph.pt")
        assert split_digest(first) == split_digest(second)
        written = [(tmp_path / name / "training_graph.pt").read_bytes() for name in "ab"]
        assert written[0] == written[1]
        assert split_digest(load_graph(tmp_path / "a" / "training_graph.pt")) == split_digest(first)

    def test_without_the_held_out_edges_the_messages_are_the_same_to_the_bit(self, config, listens, build):
        divided = split_graph(build(listens), config, listens)
        bare = split_graph(build(listens), config, listens)
        store = bare[LISTENS]
        train = store.train_mask.clone()
        for name in ("edge_index", *EDGE_ATTRIBUTES, "train_mask", "val_mask", "test_mask"):
            store[name] = store[name][..., train]
        bare[REV_LISTENS].edge_index = bare[REV_LISTENS].edge_index[:, train]
        assert graph_digest(message_graph(bare)) == graph_digest(message_graph(divided))

    def test_what_held_out_rows_say_changes_nothing_in_the_training_graph(self, config, listens, build):
        """Plays, skips, completion of held-out rows are altered; every tensor has to stay the same to the bit."""
        divided = split_graph(build(listens), config, listens)
        altered = alter_rows(listens, held_out_rows(divided, listens, config))
        assert graph_digest(split_graph(build(altered), config, altered)) == graph_digest(divided)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), kept=st.floats(0.2, 0.9), gap=st.integers(0, 5))
def test_temporal_training_data_depends_on_nothing_after_the_cut(make_listens, make_graph, seed, kept, gap):
    """Rows from the first held-out day on are replaced by others, with other pairs; ids and catalogue stay."""
    config = SplitConfig.parse({**TEMPORAL.model_dump(), "gap_days": gap}, "split")
    one, other = make_listens(seed=1), make_listens(seed=seed)
    before = one.filter(pa.array(one["day"].to_numpy() < FIRST_DAY + 35 - gap))
    after = other.filter(pa.array(other["day"].to_numpy() >= FIRST_DAY + 35 - gap))
    after = after.filter(pa.array(np.random.default_rng(seed).random(len(after)) < kept))
    mixed = pa.concat_tables([before, after]).sort_by([(name, "ascending") for name in ("user", "song", "day")])
    seen, all_attributes = zip(*(training_data(make_graph, rows, config) for rows in (one, mixed)), strict=True)
    assert seen[0] == seen[1]
    assert all(torch.equal(all_attributes[0][name], all_attributes[1][name]) for name in EDGE_ATTRIBUTES)


def training_data(make_graph, rows: pa.Table, config: SplitConfig) -> tuple[str, dict[str, torch.Tensor]]:
    """The digest of what carries messages, and every attribute of the train edges."""
    divided = split_graph(make_graph(table=rows), config, rows)
    store = divided[LISTENS]
    return graph_digest(message_graph(divided)), {name: store[name][store.train_mask] for name in EDGE_ATTRIBUTES}


def held_out_rows(divided, listens: pa.Table, config: SplitConfig) -> np.ndarray:
    if config is TEMPORAL:
        return listens["day"].to_numpy() >= FIRST_DAY + 35
    store = divided[LISTENS]
    train = set(map(tuple, store.edge_index[:, store.train_mask].T.tolist()))
    pairs = zip(listens["user"].to_pylist(), listens["song"].to_pylist(), strict=True)
    return np.array([pair not in train for pair in pairs])


def alter_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    for name in ("plays", "skips", "completion", "last_played"):
        values = table[name].to_numpy()
        table = with_column(table, name, np.where(rows, values * 7 + 3, values).astype(values.dtype))
    return table


def test_the_age_of_a_listen_is_counted_from_the_last_train_day(listens, build):
    divided = split_graph(build(listens), TEMPORAL, listens)
    shortened = listens.filter(pa.array(listens["day"].to_numpy() < FIRST_DAY + 35))
    store = divided[LISTENS]
    assert torch.equal(store.weight[store.train_mask], build(shortened)[LISTENS].weight)
    assert torch.equal(store.plays[store.train_mask], build(shortened)[LISTENS].plays)
    assert store.last_played.max() < (FIRST_DAY + 35) * 86_400


def test_temporal_re_listens_are_kept_apart(listens, build):
    store = split_graph(build(listens), TEMPORAL, listens)[LISTENS]
    train = set(map(tuple, store.edge_index[:, store.train_mask].T.tolist()))
    val = set(map(tuple, store.edge_index[:, store.val_mask].T.tolist()))
    again_val = set(map(tuple, store.relisten_val_index.T.tolist()))
    again_test = set(map(tuple, store.relisten_test_index.T.tolist()))
    assert again_val
    assert again_val <= train
    assert again_test <= train | val


@pytest.mark.parametrize("config", [TEMPORAL, SplitConfig(strategy="temporal")], ids=["dates", "ratios"])
def test_a_temporal_split_says_where_its_cuts_are(config, listens, build):
    days = split_days(split_graph(build(listens), config, listens))
    by_dates = SplitConfig(strategy="temporal", val_from=days["val_from"], test_from=days["test_from"])
    again, first = (split_graph(build(listens), chosen, listens) for chosen in (by_dates, config))
    assert split_digest(again) == split_digest(first)
    assert split_days(split_graph(build(listens), SplitConfig(), listens)) == {}


def test_without_the_listens_train_edges_keep_the_attributes_of_the_graph(tiny_graph):
    store = split_graph(tiny_graph, SplitConfig())[LISTENS]
    for name in EDGE_ATTRIBUTES:
        assert torch.equal(store[name][store.train_mask], tiny_graph[LISTENS][name][store.train_mask])


def test_masks_are_the_same_with_and_without_the_listens(listens, build):
    for strategy in ("random", "leave_last_out"):
        config = SplitConfig(strategy=strategy)
        assert split_digest(split_graph(build(listens), config)) == split_digest(
            split_graph(build(listens), config, listens)
        )


@settings(max_examples=25, deadline=None)
@given(more=st.integers(0, 400), seed=st.integers(0, 3))
def test_random_pairs_stay_held_out_when_users_songs_and_listens_are_added(make_graph, more, seed):
    sizes = {"num_users": 40 + more // 20, "num_songs": 30 + more // 20}
    small = split_graph(make_graph(seed=seed, num_rows=150), SplitConfig())[LISTENS]
    grown_graph = make_graph(seed=seed + 10, num_rows=150 + more, **sizes)
    both = torch.cat([small.edge_index, grown_graph[LISTENS].edge_index], dim=1).unique(dim=1)
    for name in EDGE_ATTRIBUTES:
        del grown_graph[LISTENS][name]
    grown_graph[LISTENS].edge_index, grown_graph[LISTENS].weight = both, torch.ones(both.size(1))
    grown = split_graph(grown_graph, SplitConfig())[LISTENS]
    for mask in ("val_mask", "test_mask"):
        before = set(map(tuple, small.edge_index[:, small[mask]].T.tolist()))
        assert before <= set(map(tuple, grown.edge_index[:, grown[mask]].T.tolist()))


def test_counts_add_up(listens, build):
    counts = split_counts(split_graph(build(listens), TEMPORAL, listens))
    parts = ("train_pairs", "val_pairs", "test_pairs", "new_user_val_pairs", "new_user_test_pairs")
    assert counts["pairs"] == sum(counts[part] for part in parts)
    assert counts["train_users"] <= counts["users"] == 40
    assert counts["relisten_test_pairs"] > 0


def test_the_split_digest_changes_with_the_salt_and_not_with_the_weights(make_graph):
    graph = make_graph()
    digest = split_digest(split_graph(graph, SplitConfig()))
    assert split_digest(split_graph(graph, SplitConfig(salt=1))) != digest
    graph[LISTENS].weight *= 2
    assert split_digest(split_graph(graph, SplitConfig())) == digest


def test_a_graph_that_cannot_be_split_is_a_sentence(tiny_graph, tiny_training_graph, listens):
    with pytest.raises(InputError, match="has train, val and test masks already"):
        split_graph(tiny_training_graph, SplitConfig())
    with pytest.raises(InputError, match="hold different pairs; build the graph from these listens"):
        split_graph(tiny_graph, SplitConfig(), listens.slice(5))
    with pytest.raises(InputError, match="needs played_at in every row, and the listens table beside the graph"):
        split_graph(tiny_graph, SplitConfig(strategy="temporal"))
    del tiny_graph["song"].id_hash
    with pytest.raises(InputError, match="The song nodes of the graph have no id_hash"):
        split_graph(tiny_graph, SplitConfig())

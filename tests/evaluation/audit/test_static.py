"""Each kind of leak is planted in a training graph of the pipeline, which is clean without it, and is caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import BY, LISTENS, MASKS, REV_LISTENS, message_graph
from data.split import SplitConfig
from data.training_graph import EDGE_ATTRIBUTES, split_graph
from evaluation.audit import auditor
from evaluation.audit.auditor import IN_SAMPLE, NO_LISTENS, NO_TRAINER, WITHOUT_MASKS, audit_graph
from evaluation.audit.node_counts import origin
from evaluation.audit.planting import Probe

STRATEGIES = ("random", "leave_last_out", "temporal", "temporal with a gap", "temporal by ratio", "column")
ALL, TRAIN = "all", "train"


def degree(graph: HeteroData, kind: str, part: str) -> Tensor:
    store = graph[LISTENS]
    edges = store.edge_index if part == ALL else store.edge_index[:, store.train_mask]
    return torch.bincount(edges[int(kind == "song")], minlength=graph[kind].num_nodes)


def held_out(graph: HeteroData, mask: str = "test_mask") -> Tensor:
    """(2, K) pairs of a part."""
    return graph[LISTENS].edge_index[:, graph[LISTENS][mask]]


class TestThePipelinesOwnGraphs:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    @pytest.mark.parametrize("with_listens", [True, False])
    def test_are_clean(self, make, strategy: str, with_listens: bool) -> None:
        found = make(strategy).audit(with_listens)
        assert found.refusal() == ""
        assert found.passed
        assert len(found.checks) == (11 if with_listens else 10)
        found.require()

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), strategy=st.sampled_from(STRATEGIES), num_users=st.integers(5, 60))
    def test_are_clean_whatever_the_log(self, make, seed: int, strategy: str, num_users: int) -> None:
        made = make(strategy, seed=seed, num_users=num_users)
        assert made.audit().refusal() == ""

    def test_what_was_compared_is_kept_as_digests(self, made) -> None:
        digests = made.audit().digests
        assert digests["train pairs"] == digests["pairs of messages"] == digests["pairs of reversed messages"]
        assert digests["train pairs"] != digests["held-out pairs"]
        assert len(digests["split"]) == 64

    def test_the_gap_is_named(self, make) -> None:
        made = make("temporal with a gap")
        store = made.graph[LISTENS]
        gap = int((~(store.train_mask | store.val_mask | store.test_mask)).sum())
        gap -= store.new_user_val_index.shape[1] + store.new_user_test_index.shape[1]
        assert (
            f"{gap} pairs are in no mask. The audit assumes that the gap before the held-out days left them out."
            in made.audit().cannot_say
        )


class TestMasks:
    def test_an_edge_in_two_masks(self, made) -> None:
        store = made.graph[LISTENS]
        store.val_mask[store.test_mask.nonzero()[:3]] = True
        leak = made.leak()
        assert (leak.name, leak.found) == ("masks overlap", 3)
        assert leak.says == "Listens edges in two masks: 3; they are held out and also train or validation."

    def test_a_test_edge_in_train_is_among_the_messages_too(self, made) -> None:
        store = made.graph[LISTENS]
        store.train_mask[store.test_mask.nonzero()[:2]] = True
        leaks = {check.name: check.found for check in made.audit(with_listens=False).checks if not check.passed}
        assert leaks == {"masks overlap": 2, "messages": 2}

    def test_an_edge_in_no_mask_without_a_reason(self, made) -> None:
        store = made.graph[LISTENS]
        store.test_mask[store.test_mask.nonzero()[:4]] = False
        leak = made.leak()
        assert (leak.name, leak.found) == ("edges in no mask", 4)

    @pytest.mark.parametrize("mask", MASKS)
    def test_a_missing_mask_would_make_every_edge_train(self, made, mask: str) -> None:
        del made.graph[LISTENS][mask]
        leak = made.leak()
        assert (leak.name, leak.found) == ("form of the masks", 1)
        assert leak.says == (
            f"Masks that are missing or do not have one bool per edge: 1 ({mask}); it is not certain what is held out."
        )

    def test_lists_of_held_out_pairs_without_masks(self, make) -> None:
        made = make("temporal")
        for mask in MASKS:
            del made.graph[LISTENS][mask]
        assert made.leak().found == 3

    def test_a_mask_of_numbers(self, made) -> None:
        made.graph[LISTENS].val_mask = made.graph[LISTENS].val_mask.long()
        assert made.leak().name == "form of the masks"

    def test_a_pair_that_is_there_twice_in_two_parts(self, made) -> None:
        double(made.graph, int(made.graph[LISTENS].test_mask.nonzero()[0]), "train_mask")
        leaks = {check.name: check.found for check in made.audit(with_listens=False).checks if not check.passed}
        assert leaks == {"pairs in two parts": 1, "messages": 1}


def double(graph: HeteroData, edge: int, mask: str) -> None:
    """Put an edge in once more, into another mask."""
    store, reverse = graph[LISTENS], graph[REV_LISTENS]
    for name in (*MASKS, *EDGE_ATTRIBUTES):
        store[name] = torch.cat([store[name], store[name][edge : edge + 1]])
    for name in MASKS:
        store[name][-1] = name == mask
    store.edge_index = torch.cat([store.edge_index, store.edge_index[:, edge : edge + 1]], dim=1)
    reverse.edge_index, reverse.weight = store.edge_index.flip(0), store.weight.clone()


class TestMessages:
    @pytest.mark.parametrize("edge", [LISTENS, REV_LISTENS], ids=lambda edge: edge[1])
    @pytest.mark.parametrize("mask", ["val_mask", "test_mask"])
    def test_a_held_out_edge_or_its_reverse(self, made, monkeypatch, edge, mask: str) -> None:
        """The function that shows a model its messages has a mistake."""

        def leaky(graph: HeteroData) -> HeteroData:
            seen, leaked = message_graph(graph), held_out(graph, mask)[:, :5]
            seen[edge].edge_index = torch.cat([seen[edge].edge_index, leaked if edge == LISTENS else leaked.flip(0)], 1)
            return seen

        monkeypatch.setattr(auditor, "message_graph", leaky)
        leak = made.leak()
        assert (leak.name, leak.found) == ("messages", 5)
        assert leak.says == "Held-out pairs among the edges that messages pass over, or their reverses: 5."

    @pytest.mark.parametrize("name", ["new_user_val_index", "new_user_test_index"])
    def test_a_pair_of_a_new_user(self, make, monkeypatch, name: str) -> None:
        made = new_users(make)

        def leaky(graph: HeteroData) -> HeteroData:
            seen = message_graph(graph)
            seen[LISTENS].edge_index = torch.cat([seen[LISTENS].edge_index, graph[LISTENS][name]], 1)
            return seen

        monkeypatch.setattr(auditor, "message_graph", leaky)
        assert made.leak().name == "messages"


def new_users(make):
    """A split by column in which some users have no train pair, in either part."""
    made = make("column")
    column = np.array(made.listens["split"].to_pylist())
    column[made.listens["user"].to_numpy() == 1] = "valid"
    column[made.listens["user"].to_numpy() == 2] = "test"
    listens = made.listens.set_column(made.listens.schema.get_field_index("split"), "split", pa.array(column))
    return made._replace(listens=listens, graph=split_graph(made.whole, SplitConfig(strategy="column"), listens))


class TestAttributes:
    @pytest.mark.parametrize("name", EDGE_ATTRIBUTES)
    @pytest.mark.parametrize("mask", ["val_mask", "test_mask"])
    def test_on_a_held_out_edge(self, made, name: str, mask: str) -> None:
        store = made.graph[LISTENS]
        edges = store[mask].nonzero().squeeze(1)[:7]
        store[name][edges] = 3
        leak = made.leak()
        assert (leak.name, leak.found) == ("attributes of held-out edges", 7)
        assert f"(listens.{name})" in leak.says

    def test_on_the_reverse_of_a_held_out_edge(self, made) -> None:
        made.graph[REV_LISTENS].weight = made.whole[REV_LISTENS].weight.clone()
        leak = made.leak()
        assert leak.found == int((~made.graph[LISTENS].train_mask).sum())
        assert "(rev_listens.weight)" in leak.says

    def test_of_an_unknown_name_on_a_held_out_edge(self, made) -> None:
        made.graph[LISTENS].rating = torch.ones(made.graph[LISTENS].edge_index.shape[1])
        assert "(listens.rating)" in made.leak().says

    def test_of_an_unknown_name_on_train_edges_cannot_be_judged(self, made) -> None:
        made.graph[LISTENS].rating = made.graph[LISTENS].train_mask.float()
        found = made.audit()
        assert found.passed
        assert "The origin of these edge attributes is not known: rating." in found.cannot_say

    @pytest.mark.parametrize("strategy", ["temporal", "temporal with a gap", "temporal by ratio"])
    @pytest.mark.parametrize("name", EDGE_ATTRIBUTES)
    def test_that_count_what_was_heard_again_in_held_out_days(self, make, strategy: str, name: str) -> None:
        made = make(strategy)
        store, train = made.graph[LISTENS], made.graph[LISTENS].train_mask
        differing = int((store[name] != made.whole[LISTENS][name])[train].sum())
        store[name] = torch.where(train, made.whole[LISTENS][name], store[name])
        if name == "weight":
            made.graph[REV_LISTENS].weight = store.weight.clone()
        if name == "first_played":
            assert differing == 0, "the first listen of a train pair is a train row"
            return
        leak = made.leak()
        assert leak.name == "attributes of train edges"
        assert name in leak.says
        assert leak.found >= differing > 0

    def test_whose_age_is_measured_from_the_last_day_of_the_log(self, make) -> None:
        """Without the listens a split keeps the weights of the whole graph, which know when the log ends."""
        made = make("random")
        last = made.listens["day"].to_numpy() == made.listens["day"].to_numpy().max()
        pair = made.listens["user"].to_numpy() * 1_000 + made.listens["song"].to_numpy()
        listens = made.listens.filter(pa.array(~(last & np.isin(pair, train_pairs(made.graph)))))
        whole = rebuilt(made.whole, listens)
        clean = made._replace(graph=split_graph(whole, SplitConfig(), listens), whole=whole, listens=listens)
        assert clean.audit().passed
        leaky = clean._replace(graph=split_graph(whole, SplitConfig()))
        leak = leaky.leak()
        assert (leak.name, leak.found) == ("attributes of train edges", int(clean.graph[LISTENS].train_mask.sum()))
        assert leak.says.endswith("(weight).")

    def test_a_train_pair_that_is_first_heard_after_the_cut(self, make) -> None:
        made = make("temporal")
        store = made.graph[LISTENS]
        day = made.whole[LISTENS].first_played // 86_400
        edge = torch.where(store.test_mask, day, 0).argmax()
        store.test_mask[edge], store.train_mask[edge] = False, True
        assert made.leak().name == "attributes of train edges"

    def test_listens_of_another_graph_are_refused(self, made, make) -> None:
        with pytest.raises(InputError) as refused:
            audit_graph(made.graph, make(seed=1).listens)
        assert str(refused.value) == (
            "The listens table and the graph hold different pairs; give the listens it was built from."
        )


def train_pairs(graph: HeteroData) -> np.ndarray:
    user, song = held_out(graph, "train_mask").numpy()
    return user * 1_000 + song


def rebuilt(whole: HeteroData, listens: pa.Table) -> HeteroData:
    from data.graph import assemble_graph
    from data.listens import Listens
    from data.weights import WeightConfig

    hashes = {kind: whole[kind].id_hash for kind in ("user", "song", "artist")}
    return assemble_graph(hashes, Listens.from_table(listens), whole[BY].edge_index, WeightConfig())


def ranks(count: Tensor) -> Tensor:
    return torch.empty_like(count).scatter_(0, count.argsort(stable=True), torch.arange(len(count)))


DISGUISES: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda count: count,
    "share": lambda count: count / count.sum(),
    "logarithm": lambda count: torch.log1p(count.float()),
    "negated": lambda count: -count.float(),
    "rank": ranks,
    "bins": lambda count: torch.bucketize(count.float(), count.float().quantile(torch.linspace(0.1, 0.9, 9))),
}


class TestCountsOnNodes:
    @pytest.mark.parametrize("kind", ["user", "song"])
    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_over_all_listens(self, make, kind: str, disguise: str) -> None:
        made = make(num_users=150, num_songs=120, num_rows=4_000)
        made.graph[kind].popularity = DISGUISES[disguise](degree(made.graph, kind, ALL))
        leak = made.leak()
        assert (leak.name, leak.found) == ("counts on nodes", 1)
        assert leak.says == f"Node attributes counted over held-out listens: 1 ({kind}.popularity)."

    @pytest.mark.parametrize("kind", ["user", "song"])
    @pytest.mark.parametrize("disguise", DISGUISES)
    def test_over_train_listens_are_fine(self, make, kind: str, disguise: str) -> None:
        made = make(num_users=150, num_songs=120, num_rows=4_000)
        made.graph[kind].popularity = DISGUISES[disguise](degree(made.graph, kind, TRAIN))
        assert made.audit().refusal() == ""

    @pytest.mark.parametrize("mask", ["val_mask", "test_mask"])
    def test_over_one_held_out_part(self, make, mask: str) -> None:
        made = make(num_users=150, num_songs=120, num_rows=4_000)
        pairs = held_out(made.graph, mask)
        made.graph["song"].x = torch.bincount(pairs[1], minlength=120).float()
        assert made.leak().name == "counts on nodes"

    def test_of_plays_need_the_listens(self, made) -> None:
        plays = torch.bincount(
            made.whole[LISTENS].edge_index[1], made.whole[LISTENS].plays.double(), made.graph["song"].num_nodes
        )
        made.graph["song"].plays = plays
        assert made.leak().name == "counts on nodes"
        found = made.audit(with_listens=False)
        assert found.passed
        assert "The origin of these node attributes is not known: song.plays." in found.cannot_say

    def test_of_an_artists_listeners(self, make) -> None:
        made = make(num_users=150, num_songs=120, num_rows=4_000)
        song, artist = made.graph[BY].edge_index
        made.graph["artist"].listens = torch.bincount(
            artist, degree(made.graph, "song", ALL)[song].double(), made.graph["artist"].num_nodes
        )
        assert made.leak().says == "Node attributes counted over held-out listens: 1 (artist.listens)."

    def test_in_one_column_of_many(self, made) -> None:
        random = torch.randn(made.graph["song"].num_nodes, 3, generator=torch.Generator().manual_seed(0))
        made.graph["song"].x = torch.cat([random, degree(made.graph, "song", ALL)[:, None]], dim=1)
        assert "(song.x[3])" in made.leak().says

    def test_beside_the_nodes(self, made) -> None:
        made.graph.song_popularity = degree(made.graph, "song", ALL)
        assert "(song.song_popularity)" in made.leak().says

    def test_an_attribute_of_another_origin_is_not_accused(self, made) -> None:
        made.graph["song"].tempo = torch.rand(made.graph["song"].num_nodes, generator=torch.Generator().manual_seed(0))
        made.graph["song"].constant = torch.ones(made.graph["song"].num_nodes)
        found = made.audit()
        assert found.passed
        assert "The origin of these node attributes is not known: song.tempo." in found.cannot_say

    @settings(max_examples=50, deadline=None)
    @given(st.integers(2, 200), st.integers(1, 5), st.integers(0, 10_000))
    def test_a_random_flag_is_never_taken_for_a_count(self, size: int, kinds: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        flag, count = rng.integers(kinds + 1, size=size) * 1.0, rng.poisson(3, size=size) + 10.0
        assert origin(flag, {}, {"all": count}) == "unknown"


class TestEdgesFromCoOccurrence:
    @pytest.fixture
    def sparse(self, make):
        return make(num_users=60, num_songs=200, num_rows=500)

    @pytest.mark.parametrize("kind", ["user", "song"])
    def test_that_held_out_listens_alone_explain(self, sparse, kind: str) -> None:
        graph = sparse.graph
        train, everything = meetings(graph, kind, TRAIN), meetings(graph, kind, ALL)
        graph[kind, "meets", kind].edge_index = (everything > 0).nonzero().T
        leak = sparse.leak()
        assert (leak.name, leak.found) == ("edges from co-occurrence", int(((everything > 0) & (train == 0)).sum()))
        assert f"({kind} meets {kind})" in leak.says

    @pytest.mark.parametrize("kind", ["user", "song"])
    def test_one_such_edge_among_good_ones(self, sparse, kind: str) -> None:
        train, everything = meetings(sparse.graph, kind, TRAIN), meetings(sparse.graph, kind, ALL)
        leaked = ((everything > 0) & (train == 0)).nonzero()[:1]
        sparse.graph[kind, "meets", kind].edge_index = torch.cat([(train > 0).nonzero(), leaked]).T
        assert sparse.leak().found == 1

    @pytest.mark.parametrize("kind", ["user", "song"])
    def test_that_train_listens_explain_are_fine(self, sparse, kind: str) -> None:
        train = meetings(sparse.graph, kind, TRAIN)
        sparse.graph[kind, "meets", kind].edge_index = (train > 0).nonzero().T
        sparse.graph[kind, "meets", kind].count = train[train > 0]
        found = sparse.audit()
        assert found.refusal() == ""
        assert not any("meets" in line for line in found.cannot_say)

    def test_whose_weights_count_held_out_listens(self, sparse) -> None:
        train, everything = meetings(sparse.graph, "song", TRAIN), meetings(sparse.graph, "song", ALL)
        sparse.graph["song", "meets", "song"].edge_index = (train > 0).nonzero().T
        sparse.graph["song", "meets", "song"].count = everything[train > 0]
        leak = sparse.leak()
        assert leak.found == int((train != everything)[train > 0].sum())

    def test_of_another_origin_are_not_accused(self, sparse) -> None:
        song = torch.arange(199)
        sparse.graph["song", "next", "song"].edge_index = torch.stack([song, song + 1])
        found = sparse.audit()
        assert found.passed
        assert "The origin of these edges is not known: song next song." in found.cannot_say

    def test_from_users_to_artists(self, sparse) -> None:
        user, song = sparse.graph[LISTENS].edge_index
        by = dict(reversed(sparse.graph[BY].edge_index.T.tolist()))
        pairs = {(u, by[s]) for u, s in zip(user.tolist(), song.tolist(), strict=True) if s in by}
        sparse.graph["user", "likes", "artist"].edge_index = torch.tensor(sorted(pairs)).T
        assert sparse.leak().name == "edges from co-occurrence"

    @pytest.mark.parametrize(
        "edge", [("user", "likes", "song"), ("song", "liked_by", "user")], ids=lambda edge: edge[1]
    )
    def test_a_held_out_pair_under_another_name(self, sparse, edge) -> None:
        pairs = held_out(sparse.graph)[:, :6]
        sparse.graph[edge].edge_index = pairs if edge[0] == "user" else pairs.flip(0)
        assert sparse.leak().found == 6


def meetings(graph: HeteroData, kind: str, part: str) -> Tensor:
    """(N, N) songs in common of two users, or users of two songs; zero on the diagonal."""
    pairs = graph[LISTENS].edge_index if part == ALL else held_out(graph, "train_mask")
    heard = torch.zeros(graph["user"].num_nodes, graph["song"].num_nodes)
    heard[pairs[0], pairs[1]] = 1
    return (heard @ heard.T if kind == "user" else heard.T @ heard).fill_diagonal_(0)


class TestListsOfPairs:
    def test_that_negatives_avoid(self, made) -> None:
        made.graph[LISTENS].avoid_index = made.graph[LISTENS].edge_index.clone()
        leak = made.leak()
        assert (leak.name, leak.found) == ("lists of pairs", int((~made.graph[LISTENS].train_mask).sum()))
        assert leak.says == (
            f"Held-out pairs in lists of the graph, such as those that negatives avoid: {leak.found} (avoid_index)."
        )

    def test_of_train_pairs_is_fine(self, made) -> None:
        made.graph.avoid_index = held_out(made.graph, "train_mask")
        assert made.audit().passed

    def test_of_new_users_that_are_in_train_too(self, make) -> None:
        made = new_users(make)
        made.graph[LISTENS].new_user_test_index = torch.cat(
            [made.graph[LISTENS].new_user_test_index, held_out(made.graph, "train_mask")[:, :3]], dim=1
        )
        leaks = {check.name: check.found for check in made.audit(with_listens=False).checks if not check.passed}
        assert leaks == {"pairs of new users": 3, "messages": 3}

    def test_relistens_may_be_in_train(self, make) -> None:
        made = make("temporal")
        store = made.graph[LISTENS]
        relistens, train = store.relisten_test_index, held_out(made.graph, "train_mask")
        assert set(map(tuple, relistens.T.tolist())) & set(map(tuple, train.T.tolist()))
        assert made.audit().passed


class TestWhatItCannotSay:
    def test_of_a_graph_without_masks(self, made) -> None:
        found = audit_graph(made.whole)
        assert found.passed
        assert found.cannot_say == WITHOUT_MASKS
        assert [check.name for check in found.checks] == ["form of the masks"]

    def test_without_the_listens_and_a_trainer(self, made) -> None:
        sentences = made.audit(with_listens=False).cannot_say
        assert NO_LISTENS in sentences
        assert NO_TRAINER in sentences
        assert NO_LISTENS not in made.audit().cannot_say

    def test_of_a_trainer_that_trains_on_everything(self, made) -> None:
        class Everything(Probe):
            trains_on_everything = True

            def __init__(self) -> None: ...

            def __call__(self, graph: HeteroData) -> dict[str, str]:
                raise AssertionError("no canary is run")

        found = audit_graph(made.graph, probe=Everything())
        assert found.passed
        assert found.canary is None
        assert IN_SAMPLE in found.cannot_say


def test_every_leak_is_named_in_the_refusal(made) -> None:
    made.graph[LISTENS].weight[made.graph[LISTENS].test_mask] = 1
    made.graph["song"].popularity = degree(made.graph, "song", ALL)
    found = made.audit()
    assert found.refusal().startswith("The audit refuses to train: ")
    assert "(listens.weight)" in found.refusal()
    assert "(song.popularity)" in found.refusal()
    with pytest.raises(InputError):
        found.require()

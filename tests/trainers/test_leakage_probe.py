"""The canary with real trainers: ours are clean with every model, and each way to cheat is caught."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import LISTENS, REV_LISTENS, message_graph
from evaluation.audit.auditor import IN_SAMPLE, audit_graph
from evaluation.audit.planting import run_canary
from models.architectures import MODELS
from models.base import Embeddings, RecommenderModel
from trainers.advanced import AdvancedTrainer
from trainers.leakage_probe import TrainerProbe
from trainers.names import TRAINERS
from trainers.objective import PairObjective
from trainers.sampling import KnownPairs, train_pairs

OURS = sorted(set(TRAINERS) - {"simple", "federated"})  # the last one shows no pairs: see its own test
NAMES = {"messages", "training pairs", "known pairs", "embeddings", "weights"}


def probe(trainer: str | type = "advanced", architecture: str = "lightgcn", **training) -> TrainerProbe:
    name = trainer if isinstance(trainer, str) else f"{__name__}:{trainer.__name__}"
    return TrainerProbe(name, {"architecture": architecture, "embedding_dim": 8}, {"seed": 5, **training})


@pytest.mark.parametrize(
    ("trainer", "architecture", "loss"),
    [
        *(("advanced", architecture, "softmax") for architecture in MODELS),
        *((trainer, "lightgcn", "bpr") for trainer in OURS),
    ],
)
def test_our_trainers_are_clean_and_the_control_changes_all(
    tiny_training_graph: HeteroData, trainer: str, architecture: str, loss: str
) -> None:
    found = run_canary(tiny_training_graph, probe(trainer, architecture, loss=loss))
    assert found.same_when_held_out == dict.fromkeys(NAMES, True)
    assert found.changed_in_train == dict.fromkeys(NAMES, True)
    assert found.passed


def test_a_trainer_that_trains_on_everything_is_not_asked(tiny_training_graph: HeteroData) -> None:
    found = audit_graph(tiny_training_graph, probe=probe("simple"))
    assert found.passed
    assert found.canary is None
    assert IN_SAMPLE in found.cannot_say


def test_nothing_of_it_is_logged_or_left_behind(tiny_training_graph, tmp_path, monkeypatch, caplog, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        run_canary(tiny_training_graph, probe())
    assert caplog.text == ""
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_callers_random_numbers_are_left_alone(tiny_training_graph: HeteroData) -> None:
    before = torch.get_rng_state()
    run_canary(tiny_training_graph, probe("advanced", "gat"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "training", [{"eval_k": 500, "monitor": "recall@500"}, {"batch_size": 10**6, "lr_patience": 0}]
)
def test_a_runs_config_fits_the_small_sample(tiny_training_graph: HeteroData, training: dict) -> None:
    assert run_canary(tiny_training_graph, probe(**training)).passed


def test_which_epoch_is_the_best_may_depend_on_validation(tiny_training_graph: HeteroData) -> None:
    found = run_canary(tiny_training_graph, probe(PickyTrainer))
    assert found.passed


class PickyTrainer(AdvancedTrainer):
    """Takes the first or the second epoch for the best, as the number of validation pairs says."""

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        many = int(graph[LISTENS].val_mask.sum()) > 100
        return {self.watched_metric(): float(self.current_epoch if many else -self.current_epoch)}


class ReadsValidation(AdvancedTrainer):
    """Trains on validation pairs too, which it takes aside in ``prepare``."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        self.taken = graph[LISTENS].edge_index[:, graph[LISTENS].train_mask | graph[LISTENS].val_mask]
        return super().prepare(graph)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return self.train_on_pairs(graph, self.taken)


class PassesMessagesOverAll(AdvancedTrainer):
    """Gives the model a graph whose messages run over every edge."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        graph = super().prepare(graph)
        self.everything = graph.clone()
        for mask in ("train_mask", "val_mask", "test_mask"):
            del self.everything[LISTENS][mask]
        return graph

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return self.train_on_pairs(message_graph(self.everything), train_pairs(graph))


class PassesTestMessagesWhenItRanks(AdvancedTrainer):
    """Trains honestly, and ranks by messages over test edges."""

    def embeddings(self, graph: HeteroData) -> Embeddings:
        leaky = graph.clone()
        leaky[LISTENS].train_mask = graph[LISTENS].train_mask | graph[LISTENS].test_mask
        return super().embeddings(leaky)


class AvoidsHeldOutNegatives(AdvancedTrainer):
    """Never draws a validation song as a negative, so that these songs keep their score."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        self.objective = _Avoiding(self, graph[LISTENS].edge_index)
        return super().prepare(graph)


class _Avoiding(PairObjective):
    def __init__(self, trainer: AdvancedTrainer, pairs: Tensor) -> None:
        super().__init__(trainer.config)
        self.pairs = pairs

    def learned(self, model: RecommenderModel, graph: HeteroData) -> KnownPairs:
        return KnownPairs(self.pairs, int(graph["song"].num_nodes), int(graph["user"].num_nodes))


class LearnsFromItsEvaluation(AdvancedTrainer):
    """Takes test pairs aside when it evaluates, and trains on them in the next epoch."""

    leaked: Tensor | None = None

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        self.leaked = graph[LISTENS].edge_index[:, graph[LISTENS].test_mask]
        return super().evaluate(graph)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        pairs = train_pairs(graph)
        return self.train_on_pairs(graph, pairs if self.leaked is None else torch.cat([pairs, self.leaked], dim=1))


class WritesPopularityIntoTheWeights(AdvancedTrainer):
    """Adds to the songs their number of listeners in the whole graph, read from the reverse edges."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        num_users, num_songs = (int(graph[kind].num_nodes) for kind in ("user", "song"))
        self.songs = slice(num_users, num_users + num_songs)
        self.listeners = torch.bincount(graph[REV_LISTENS].edge_index[0], minlength=num_songs)
        return super().prepare(graph)

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        with torch.no_grad():
            self.model.table[self.songs, 0] += self.listeners
        return False


class LearnsWhenItTests(AdvancedTrainer):
    """Changes the finished weights by the test pairs."""

    def test(self, graph: HeteroData) -> dict[str, float]:
        with torch.no_grad():
            self.model.table[graph[LISTENS].edge_index[0, graph[LISTENS].test_mask]] += 1
        return super().test(graph)


class TakesForTrainWhatIsNotHeldOut(AdvancedTrainer):
    """Reads edges in no mask, which are those of new users and of the gap."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        store = graph[LISTENS]
        self.taken = store.edge_index[:, ~(store.val_mask | store.test_mask)]
        return super().prepare(graph)

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return self.train_on_pairs(graph, self.taken)


@pytest.mark.parametrize(
    ("trainer", "parts", "what"),
    [
        (ReadsValidation, ("val",), "training pairs"),
        (PassesMessagesOverAll, ("val", "test", "none"), "known pairs"),
        (PassesTestMessagesWhenItRanks, ("test",), "embeddings"),
        (AvoidsHeldOutNegatives, ("val", "test", "none"), "weights"),
        (LearnsFromItsEvaluation, ("test",), "training pairs"),
        (WritesPopularityIntoTheWeights, ("val", "test", "none"), "weights"),
        (LearnsWhenItTests, ("test",), "weights"),
        (TakesForTrainWhatIsNotHeldOut, ("none",), "training pairs"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_trainer_that_reads_what_is_held_out_is_caught(
    tiny_training_graph: HeteroData, trainer: type, parts: tuple[str, ...], what: str
) -> None:
    found = run_canary(tiny_training_graph, probe(trainer, loss="bpr"))
    assert not found.passed
    # weights changed at the end are of the best epoch, which is for validation to choose: that may show too
    assert set(parts) <= set(found.leaking_parts)
    assert not found.same_when_held_out[what]
    assert audit_graph(tiny_training_graph).passed, "nothing is wrong with the graph itself"


def test_who_avoids_held_out_songs_is_caught_in_a_graph_of_many_songs_too(make_training_graph) -> None:
    """A random negative of a user is rarely one given pair of thousands: the sample has to make it likely."""
    graph = make_training_graph(num_users=500, num_songs=4_000, num_rows=12_000, groups=1)
    found = run_canary(graph, probe(AvoidsHeldOutNegatives, loss="bpr"))
    assert found.leaking_parts == ("val", "test", "none")


class DrawsWithoutSeed(AdvancedTrainer):
    """Draws from a generator that nobody seeded."""

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.model.table += torch.randn(1, generator=generator)
        return False


def test_a_trainer_that_does_not_repeat_itself_is_told_apart_from_a_leak(tiny_training_graph: HeteroData) -> None:
    found = run_canary(tiny_training_graph, probe(DrawsWithoutSeed))
    assert not found.passed
    assert "two trainings on one graph with one seed differ" in found.says


class LearnsNothing(AdvancedTrainer):
    """Never takes a step."""

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return {"loss": 0.0}


def test_a_trainer_that_learns_nothing_proves_nothing(tiny_training_graph: HeteroData) -> None:
    found = run_canary(tiny_training_graph, probe(LearnsNothing, "mf"))
    assert not found.passed
    assert found.says == "The canary is blind: the same pairs planted in train did not change weights, embeddings."

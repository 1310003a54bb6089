"""A refit: the same epochs at the same rates on all listens, with nothing to measure itself by."""

from __future__ import annotations

import json

import pytest
import torch

from data.errors import InputError
from data.graph import LISTENS, graph_digest, message_graph
from models.factory import create_model
from trainers.advanced import AdvancedTrainer
from trainers.base import BaseTrainer
from trainers.factory import trainer_class
from trainers.loop.model_files import load_embeddings
from trainers.loop.random_streams import own_global_stream, stream, stream_seed
from trainers.objective import PairObjective
from trainers.refit import ReplayedEpochs, chosen_history
from trainers.sampling import batches, train_pairs

FALLING = {"lr_patience": 0, "lr_factor": 0.5, "patience": 3}
RATES = [{"epoch": epoch, "lr": rate} for epoch, rate in enumerate((0.02, 0.02, 0.005), 1)]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Scripted(AdvancedTrainer):
    """Validation stands still once, which lowers the rate, then finds its best epoch, and no better one."""

    recalls = (0.1, 0.3, 0.2, 0.2, 0.4, 0.1, 0.1, 0.1)

    def evaluate(self, graph):
        return {"recall@5": self.recalls[self.current_epoch - 1]}


class Recording(AdvancedTrainer):
    """Notes the rate of each step and how many train edges there are."""

    def train_epoch(self, graph):
        self.edges = graph[LISTENS].edge_index.shape[1]
        return super().train_epoch(graph)

    def step(self, loss):
        self.steps = [*getattr(self, "steps", []), self.optimizer.param_groups[0]["lr"]]
        return super().step(loss)


@pytest.fixture
def make(model_config, training_config, tmp_path):
    def build(kind, folder="refit", **training):
        return kind(model_config, {**training_config, **training}, tmp_path / folder)

    return build


@pytest.fixture
def first_training(make, tiny_graph):
    """History up to the best epoch, and results, of a training whose rate falls before that epoch."""
    results = make(Scripted, "first", **FALLING).train(tiny_graph, 30)
    return AdvancedTrainer.chosen_history(results["history"], results), results


def test_trains_on_all_listens_for_the_best_epochs_at_their_rates(make, first_training, tiny_graph):
    history, results = first_training
    assert (len(history), results["epochs_run"]) == (5, 8)
    assert len({record["lr"] for record in history}) > 1
    trainer = make(Recording, **FALLING)
    refitted = trainer.refit(tiny_graph, history)
    pairs = tiny_graph[LISTENS].edge_index.shape[1]
    assert trainer.edges == pairs
    assert trainer.steps == [record["lr"] for record in history for _ in range(-(-pairs // 64))]
    assert (refitted["epochs_run"], refitted["stopped_early"]) == (5, False)


@pytest.mark.parametrize("architecture", ["gat", "lightgcn", "mf"])
def test_equals_a_loop_by_hand(architecture, make, model_config, tiny_graph):
    model_config["architecture"] = architecture
    if architecture != "gat":
        del model_config["heads"]
    trainer = make(AdvancedTrainer, seed=4)
    trainer.refit(tiny_graph, RATES)
    assert same(weights(trainer), by_hand(model_config, trainer.config, tiny_graph))


def by_hand(model_config, config, graph):
    """Weights after three epochs over all pairs, by the book."""
    with own_global_stream(stream_seed(config.seed, "model"), torch.device("cpu")):
        model = create_model(model_config, stream_seed(config.seed, "init"))
        optimizer, sampling = torch.optim.Adam(model.parameters()), stream(config.seed, "sampling")
        objective, seen = PairObjective(config), message_graph(graph)
        for record in RATES:
            optimizer.param_groups[0]["lr"] = record["lr"]
            model.train()
            for users, songs in batches(train_pairs(seen), config.batch_size, sampling):
                optimizer.zero_grad()
                objective.loss(model, seen, users, songs, sampling).backward()
                optimizer.step()
    return model.state_dict()


def test_has_no_metric_of_its_own(make, first_training, tiny_graph, tmp_path):
    trainer = make(AdvancedTrainer)
    results = trainer.refit(tiny_graph, first_training[0])
    assert (results["best_epoch"], results["best_metric"], results["test"]) == (None, None, {})
    assert all(set(record) == {"epoch", "lr", "loss"} for record in results["history"])
    trainer.save_model(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "history.json").read_text()) == results["history"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["refit"], config["num_epochs"]) == (True, len(first_training[0]))


def test_a_first_training_is_not_called_a_refit(make, tiny_graph, tmp_path):
    trainer = make(AdvancedTrainer)
    trainer.refit(tiny_graph, RATES)
    trainer.train(tiny_graph, 1)
    trainer.save_model(tmp_path / "model")
    assert "refit" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_covers_the_same_users_and_songs(make, first_training, tiny_graph, tmp_path):
    trainer = make(AdvancedTrainer)
    trainer.refit(tiny_graph, first_training[0])
    found = load_embeddings(trainer.save_model(tmp_path / "model"))
    assert (len(found.user), len(found.song)) == (tiny_graph["user"].num_nodes, tiny_graph["song"].num_nodes)


@pytest.mark.parametrize("name", ["advanced", "curriculum"])
def test_a_killed_refit_ends_with_the_same_weights(name, make, first_training, tiny_graph):
    class Dying(trainer_class(name)):
        dies = True

        def on_epoch_end(self, train_metrics, eval_metrics):
            if self.current_epoch == 3 and self.dies:
                raise KeyboardInterrupt
            return False

    with pytest.raises(KeyboardInterrupt):
        make(Dying, "cut").refit(tiny_graph, first_training[0])
    Dying.dies, started = False, []
    resumed, whole = make(Dying, "cut"), make(Dying, "whole")
    resumed.on_epoch_start = lambda: started.append(resumed.current_epoch)
    ours, theirs = resumed.refit(tiny_graph, first_training[0]), whole.refit(tiny_graph, first_training[0])
    assert started == list(range(3, len(first_training[0]) + 1))
    assert same(weights(resumed), weights(whole))
    assert ours["history"] == theirs["history"]


def test_does_not_take_the_checkpoint_of_the_first_training_nor_of_another_refit(make, tiny_graph, tmp_path):
    make(AdvancedTrainer, "shared").train(tiny_graph, 2)
    make(AdvancedTrainer, "shared").refit(tiny_graph, RATES)
    alone, beside = make(AdvancedTrainer, "alone"), make(AdvancedTrainer, "shared")
    longer = [*RATES, {"epoch": 4, "lr": 0.001}]
    alone.refit(tiny_graph, longer)
    beside.refit(tiny_graph, longer)
    assert same(weights(alone), weights(beside))
    assert len(list((tmp_path / "shared").iterdir())) == 3


def test_the_seed_decides_the_weights(make, tiny_graph):
    trainers = [make(AdvancedTrainer, f"run-{number}", seed=seed) for number, seed in enumerate((0, 0, 1))]
    for trainer in trainers:
        trainer.refit(tiny_graph, RATES)
    first, again, other = (weights(trainer) for trainer in trainers)
    assert same(first, again)
    assert not same(first, other)


class Steered(BaseTrainer):
    """Measures validation listens only, sets its own rate, and is steered by what it measures."""

    restores_best = True

    def on_epoch_start(self):
        self.optimizer.param_groups[0]["lr"] = self.config.lr * self.current_epoch

    def train_epoch(self, graph):
        return self.train_on_pairs(graph, train_pairs(graph))

    def evaluate(self, graph):
        assert graph[LISTENS].val_mask.any()
        return self.ranking_metrics(graph, "val")

    def on_epoch_end(self, train_metrics, eval_metrics):
        self.given = [*getattr(self, "given", []), (self.current_epoch, eval_metrics["recall@5"])]
        return True


def test_a_trainer_of_ones_own_is_steered_as_in_the_first_training(make, tiny_training_graph, tiny_graph):
    class Patient(Steered):
        def on_epoch_end(self, train_metrics, eval_metrics):
            return super().on_epoch_end(train_metrics, eval_metrics) and self.current_epoch == 3

    first = make(Patient, "first", lr=0.003)
    results = first.train(tiny_training_graph, 9)
    assert results["epochs_run"] == 3
    trainer = make(Steered, lr=0.003)
    refitted = trainer.refit(tiny_graph, Steered.chosen_history(results["history"], results))
    assert trainer.given == first.given
    assert [record["lr"] for record in refitted["history"]] == [record["lr"] for record in results["history"]]
    assert (refitted["epochs_run"], refitted["stopped_early"]) == (3, False)


def test_further_groups_keep_their_ratio_to_the_first(make, tiny_graph):
    class TwoRates(AdvancedTrainer):
        def create_optimizer(self):
            first, *others = self.model.parameters()
            return torch.optim.Adam([{"params": [first], "lr": 0.01}, {"params": others, "lr": 0.001}])

        def on_epoch_end(self, train_metrics, eval_metrics):
            self.rates = [*getattr(self, "rates", []), tuple(group["lr"] for group in self.optimizer.param_groups)]

    trainer = make(TwoRates)
    trainer.refit(tiny_graph, RATES)
    assert trainer.rates == [pytest.approx(rates) for rates in ((0.02, 0.002), (0.02, 0.002), (0.005, 0.0005))]


def test_the_graph_is_not_changed(make, tiny_graph):
    before = graph_digest(tiny_graph)
    make(AdvancedTrainer).refit(tiny_graph, RATES)
    assert graph_digest(tiny_graph) == before


def test_the_epochs_that_made_the_weights_are_chosen():
    history = [{"epoch": epoch, "lr": 0.1} for epoch in (1, 2, 3)]
    results = {"best_epoch": 2, "epochs_run": 3}
    assert AdvancedTrainer.chosen_history(history, results) == history[:2]
    assert AdvancedTrainer.chosen_history(history, {**results, "best_epoch": None}) == history
    assert BaseTrainer.chosen_history(history, results) == history  # its last weights are the ones that stay
    assert chosen_history(AdvancedTrainer, history, results) == history[:2]  # the earlier import


def test_what_trains_on_everything_has_nothing_to_refit(make_trainer, tiny_graph):
    with pytest.raises(InputError) as error:
        make_trainer("simple").refit(tiny_graph, RATES)
    assert str(error.value) == (
        "SimpleTrainer trains on all listens already, so there is nothing to refit; keep its model."
    )


def test_a_split_graph_is_refused(make, tiny_training_graph):
    with pytest.raises(InputError) as error:
        make(AdvancedTrainer).refit(tiny_training_graph, RATES)
    assert str(error.value) == (
        "The graph is split, and the attributes of its held-out listens are blank; "
        "give refit the graph that it was split from."
    )


def test_a_trainer_that_holds_listens_out_all_the_same_is_refused(make, tiny_graph, tiny_training_graph):
    class Stubborn(AdvancedTrainer):
        def prepare(self, graph):
            return tiny_training_graph

    with pytest.raises(InputError, match="prepare of Stubborn holds out listens of a refit"):
        make(Stubborn).refit(tiny_graph, RATES)


@pytest.mark.parametrize("history", [[], [{"epoch": 2, "lr": 0.1}], [{"epoch": 1}], [*RATES, RATES[0]]])
def test_a_history_with_holes_is_refused(history):
    with pytest.raises(InputError, match=r"does not hold epochs 1, 2, … each with its lr"):
        ReplayedEpochs(history)

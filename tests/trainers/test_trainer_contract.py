"""What every trainer owes its users: those of the factory's table, and the examples."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from data.errors import InputError
from trainers.factory import trainer_class
from trainers.loop.progress import TrainingProgress
from trainers.names import TRAINERS

CHECKOUT = Path(__file__).resolve().parents[2]
FURTHER_FILES = {"multitask": ("heads.safetensors",)}
"""What a trainer saves beyond what all save."""
MODELS = {"federated": {"local": False}}
"""What a trainer needs of the model beside what all are tested with."""


EXAMPLES = ["examples.rare_songs:RareSongsTrainer", "contrastive"]


@pytest.fixture(params=[*sorted(TRAINERS), *EXAMPLES])
def name(request) -> str:
    if request.param == "federated":
        request.getfixturevalue("flower")
    if request.param in EXAMPLES:
        request.getfixturevalue("examples_at_hand")
    return request.param


@pytest.fixture
def examples_at_hand(installed_example, monkeypatch) -> None:
    """As for somebody who works in the project's folder and has installed the other one."""
    monkeypatch.syspath_prepend(CHECKOUT)
    monkeypatch.syspath_prepend(installed_example)


@pytest.fixture
def model_config(request, model_config):
    tested = request.node.callspec.params["name"] if "name" in request.fixturenames else ""
    return {**model_config, **MODELS.get(tested, {})}


def weights(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def interrupted(name, epoch):
    """A subclass of a trainer that dies at the end of an epoch, after its hook was called, before its checkpoint."""

    class Interrupted(trainer_class(name)):
        def on_epoch_end(self, train_metrics, eval_metrics):
            if self.current_epoch == epoch and self.dies:
                raise KeyboardInterrupt
            return False

    Interrupted.dies = True
    return Interrupted


def build(trainer, model_config, training_config, folder, **training):
    return trainer(model_config=model_config, training_config={**training_config, **training}, output_dir=folder)


def test_improves_on_its_start(name, model_config, training_config, tiny_graph, tmp_path):
    # a local channel is good before it has learned anything; vectors are not
    trainer = build(trainer_class(name), {**model_config, "local": False}, training_config, tmp_path)
    before = trainer.ranking_metrics(tiny_graph, "train")
    results = trainer.train(tiny_graph, num_epochs=12)
    after = trainer.ranking_metrics(tiny_graph, "train")
    assert after["in_sample_recall@5"] > before["in_sample_recall@5"]
    assert len(results["history"]) == results["epochs_run"]
    numbers = [value for record in (*results["history"], results["test"]) for value in record.values()]
    assert all(math.isfinite(value) for value in numbers)


def test_hooks_are_called_in_order(name, model_config, training_config, tiny_graph, tmp_path):
    calls = []

    class Watching(trainer_class(name)):
        def on_epoch_start(self):
            calls.append(("start", self.current_epoch))

        def train_epoch(self, graph):
            calls.append(("train", self.current_epoch))
            return super().train_epoch(graph)

        def evaluate(self, graph):
            calls.append(("evaluate", self.current_epoch))
            return super().evaluate(graph)

        def on_epoch_end(self, train_metrics, eval_metrics):
            assert "loss" in train_metrics
            assert any("recall@5" in metric for metric in eval_metrics)
            calls.append(("end", self.current_epoch))
            return self.current_epoch == 2

    trainer = build(Watching, model_config, training_config, tmp_path)
    assert trainer.current_epoch == 0
    results = trainer.train(tiny_graph, num_epochs=4)
    assert calls == [(what, epoch) for epoch in (1, 2) for what in ("start", "train", "evaluate", "end")]
    assert (results["stopped_early"], results["epochs_run"]) == (True, 2)


def test_same_seed_same_weights_whatever_the_callers_random_state(name, make_trainer, tiny_graph, tmp_path):
    torch.manual_seed(1)
    first = make_trainer(name, tmp_path / "a")
    first.train(tiny_graph, 3)
    torch.manual_seed(2)
    second = make_trainer(name, tmp_path / "b")
    second.train(tiny_graph, 3)
    assert same(weights(first), weights(second))


def test_another_seed_other_weights(name, make_trainer, tiny_graph):
    trainers = [make_trainer(name, seed=seed) for seed in (0, 1)]
    for trainer in trainers:
        trainer.train(tiny_graph, 2)
    assert not same(*(weights(trainer) for trainer in trainers))


def test_the_callers_random_state_is_left_alone(name, make_trainer, tiny_graph):
    before = torch.get_rng_state()
    make_trainer(name).train(tiny_graph, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_an_interrupted_run_ends_with_the_same_weights(name, model_config, training_config, tiny_graph, tmp_path):
    kind = interrupted(name, epoch=3)
    with pytest.raises(KeyboardInterrupt):
        build(kind, model_config, training_config, tmp_path / "cut").train(tiny_graph, 5)
    kind.dies = False
    resumed = build(kind, model_config, training_config, tmp_path / "cut")
    whole = build(kind, model_config, training_config, tmp_path / "whole")
    ours, theirs = resumed.train(tiny_graph, 5), whole.train(tiny_graph, 5)
    assert same(weights(resumed), weights(whole))
    assert {**ours, "checkpoint": ""} == {**theirs, "checkpoint": ""}


def test_resumes_at_the_right_epoch(name, model_config, training_config, tiny_graph, tmp_path, caplog):
    kind = interrupted(name, epoch=3)
    with pytest.raises(KeyboardInterrupt):
        build(kind, model_config, training_config, tmp_path).train(tiny_graph, 5)
    kind.dies, started = False, []
    kind.on_epoch_start = lambda self: started.append(self.current_epoch)
    with caplog.at_level("INFO"):
        build(kind, model_config, training_config, tmp_path).train(tiny_graph, 5)
    assert started == [3, 4, 5]
    assert "Resuming after epoch 2 of 5." in caplog.messages


def test_leaves_one_checkpoint_and_nothing_temporary(name, make_trainer, tiny_graph, tmp_path):
    results = make_trainer(name, tmp_path).train(tiny_graph, 2)
    assert [str(path) for path in tmp_path.iterdir()] == [results["checkpoint"]]


def test_saves_the_same_bytes_for_the_same_run(name, make_trainer, tiny_graph, tmp_path):
    for folder in ("a", "b"):
        trainer = make_trainer(name, tmp_path / folder)
        trainer.train(tiny_graph, 2)
        trainer.save_model(tmp_path / folder / "model")
    files = sorted((tmp_path / "a" / "model").iterdir())
    local = ["local.safetensors"] if trainer.model.local else []
    usual = ["config.json", "embeddings.safetensors", "history.json", *local, "model.safetensors"]
    assert [path.name for path in files] == sorted([*usual, *FURTHER_FILES.get(name, ())])
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / "model" / path.name).read_bytes(), path.name


def test_the_input_graph_is_not_changed(name, make_trainer, tiny_graph, tiny_training_graph):
    from data.graph import graph_digest

    for graph in (tiny_graph, tiny_training_graph):
        before = graph_digest(graph)
        make_trainer(name).train(graph, 1)
        assert graph_digest(graph) == before


def test_a_loss_that_is_no_number_is_refused_with_epoch_and_batch(
    name, model_config, training_config, tiny_graph, tmp_path
):
    class Broken(trainer_class(name)):
        def on_epoch_start(self):
            super().on_epoch_start()
            if self.current_epoch == 2:
                with torch.no_grad():
                    self.model.table.fill_(float("nan"))

    trainer = build(Broken, model_config, training_config, tmp_path)
    with pytest.raises(InputError, match=r"The loss is nan in epoch 2, .*batch 1.*; lower lr or raise temperature"):
        trainer.train(tiny_graph, 3)


def test_progress_is_of_the_kind_that_logs_without_a_terminal(make_trainer, tiny_graph, caplog):
    with caplog.at_level("INFO", logger="trainers.loop.progress"):
        make_trainer().train(tiny_graph, 2)
    assert [message.split("  ")[0] for message in caplog.messages] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert "recall@5" in caplog.messages[0]
    assert TrainingProgress(1).bars is None

"""The loop: what it refuses, what it hands to a subclass, how a run is continued."""

from __future__ import annotations

import pytest
import torch

from data.errors import InputError
from data.graph import BY, LISTENS
from trainers.base import BaseTrainer
from trainers.simple import SimpleTrainer


class Constant(BaseTrainer):
    """A trainer of one line an epoch."""

    metrics = ({"metric": 1.0},)

    def train_epoch(self, graph):
        return {"loss": self.step(self.model.encode(graph).user.sum())}

    def evaluate(self, graph):
        return self.metrics[min(self.current_epoch, len(self.metrics)) - 1]


@pytest.fixture
def constant(model_config, tmp_path):
    def make(kind=Constant, **training):
        return kind(model_config=model_config, training_config=training, output_dir=tmp_path / "out")

    return make


def test_a_trainer_of_ones_own_watches_nothing_by_itself(constant, tiny_graph):
    results = constant().train(tiny_graph, 2)
    assert (results["best_epoch"], results["best_metric"], results["test"]) == (None, None, {})
    assert [record["metric"] for record in results["history"]] == [1.0, 1.0]


def test_the_watched_metric_decides_the_best_epoch(constant, tiny_graph):
    class Rising(Constant):
        metrics = ({"metric": 1.0}, {"metric": 3.0}, {"metric": 3.0}, {"metric": 2.0})

    results = constant(Rising, monitor="metric").train(tiny_graph, 4)
    assert (results["best_epoch"], results["best_metric"]) == (2, 3.0)


def test_a_watched_metric_that_is_no_number_is_never_the_best(constant, tiny_graph):
    class Undefined(Constant):
        metrics = ({"metric": float("nan")}, {"metric": 2.0}, {"metric": float("nan")}, {"metric": 1.0})

    results = constant(Undefined, monitor="metric").train(tiny_graph, 4)
    assert (results["best_epoch"], results["best_metric"]) == (2, 2.0)


def test_a_watched_metric_that_does_not_exist_is_refused(make_trainer, tiny_graph):
    with pytest.raises(
        InputError, match=r"watched metric 'recall@99' does not exist; set monitor to one of recall@5, "
    ):
        make_trainer(monitor="recall@99").train(tiny_graph, 1)


def test_a_loss_that_is_no_number_names_epoch_and_batch(constant, tiny_graph):
    class Diverging(Constant):
        def train_epoch(self, graph):
            self.step(self.model.encode(graph).user.sum())
            return {"loss": self.step(self.model.encode(graph).user.sum() * float("nan"))}

    with pytest.raises(InputError, match="The loss is nan in epoch 1, batch 2; lower lr"):
        constant(Diverging).train(tiny_graph, 1)


def test_a_loss_of_ones_own_that_is_no_number_is_refused_too(constant, tiny_graph):
    class Diverging(Constant):
        def train_epoch(self, graph):
            return {"loss": float("inf")}

    with pytest.raises(InputError, match="The loss is inf in epoch 1"):
        constant(Diverging).train(tiny_graph, 1)


def test_metrics_may_be_tensors(constant, tiny_graph):
    class Tensors(Constant):
        def evaluate(self, graph):
            return {"metric": torch.tensor(0.5)}

    assert constant(Tensors).train(tiny_graph, 1)["history"][0]["metric"] == 0.5


def test_train_epoch_sees_no_held_out_edge(constant, tiny_training_graph):
    seen = []

    class Looking(Constant):
        def train_epoch(self, graph):
            seen.append(graph)
            return {"loss": 0.0}

    constant(Looking).train(tiny_training_graph, 1)
    listens = tiny_training_graph[LISTENS]
    assert torch.equal(seen[0][LISTENS].edge_index, listens.edge_index[:, listens.train_mask])
    assert not [key for store in seen[0].edge_stores for key in store if key not in ("edge_index", "weight")]


def test_weights_do_not_depend_on_test_edges_in_the_graph(make_trainer, tiny_training_graph, tmp_path):
    without = tiny_training_graph.clone()
    kept = ~without[LISTENS].test_mask
    for key, value in tiny_training_graph[LISTENS].items():
        if torch.is_tensor(value) and value.shape[-1] == len(kept):
            without[LISTENS][key] = value[..., kept]
    with_test, without_test = make_trainer("advanced", tmp_path / "a"), make_trainer("advanced", tmp_path / "b")
    ours, theirs = with_test.train(tiny_training_graph, 4), without_test.train(without, 4)
    assert ours["history"] == theirs["history"]
    assert (bool(ours["test"]), bool(theirs["test"])) == (True, False)
    for name, value in with_test.model.state_dict().items():
        assert torch.equal(value, without_test.model.state_dict()[name]), name


def test_state_of_a_subclass_is_resumed(constant, tiny_graph):
    class Counting(Constant):
        count = 0
        dies = True

        def train_epoch(self, graph):
            self.count += 1
            if self.count == 3 and self.dies:
                raise KeyboardInterrupt
            return {"loss": 0.0}

        def extra_state(self):
            return {"count": self.count}

        def load_extra_state(self, state):
            self.count = state["count"]

    with pytest.raises(KeyboardInterrupt):
        constant(Counting).train(tiny_graph, 4)
    Counting.dies = False
    trainer = constant(Counting)
    trainer.train(tiny_graph, 4)
    assert trainer.count == 4


def epochs_of_second_run(make_trainer, graph, first, second, **training):
    make_trainer("simple").train(graph, first)
    ran = []
    trainer = make_trainer("simple", **training)
    trainer.on_epoch_start = lambda: ran.append(trainer.current_epoch)
    trainer.train(graph, second)
    return ran


def test_more_epochs_continue_a_finished_run(make_trainer, tiny_graph):
    assert epochs_of_second_run(make_trainer, tiny_graph, 2, 4) == [3, 4]


def test_a_finished_run_begins_anew(make_trainer, tiny_graph):
    assert epochs_of_second_run(make_trainer, tiny_graph, 2, 2) == [1, 2]


def test_another_config_begins_anew(make_trainer, tiny_graph):
    assert epochs_of_second_run(make_trainer, tiny_graph, 2, 3, lr=0.02) == [1, 2, 3]


def test_resume_false_begins_anew(make_trainer, tiny_graph):
    assert epochs_of_second_run(make_trainer, tiny_graph, 2, 3, resume=False) == [1, 2, 3]


def test_a_continued_run_equals_one_that_went_through(make_trainer, tiny_graph, tmp_path):
    make_trainer("advanced", tmp_path / "a").train(tiny_graph, 2)
    continued, through = make_trainer("advanced", tmp_path / "a"), make_trainer("advanced", tmp_path / "b")
    assert continued.train(tiny_graph, 5)["history"] == through.train(tiny_graph, 5)["history"]
    assert torch.equal(continued.model.table, through.model.table)


def test_vectors_that_were_taken_stay_as_they_were(model_config, training_config, tiny_graph, tmp_path):
    sizes = {key: value for key, value in model_config.items() if key != "heads"}
    trainer = SimpleTrainer({**sizes, "architecture": "mf", "similarity": "dot"}, training_config, tmp_path)
    trainer.train(tiny_graph, 1)
    taken = trainer.embeddings(tiny_graph)
    before = taken.song.clone()
    trainer.train(tiny_graph, 3)
    assert torch.equal(taken.song, before)
    assert not taken.song.requires_grad


def test_one_trainer_can_train_twice(make_trainer, tiny_graph):
    trainer = make_trainer("simple")
    first = trainer.train(tiny_graph, 2)["history"]
    assert trainer.train(tiny_graph, 2)["history"] == first


@pytest.mark.parametrize(
    ("training", "epochs", "sentence"),
    [
        ({}, 0, "num_epochs is 0; give at least 1"),
        ({"eval_k": 31}, 1, "31"),
    ],
)
def test_a_wrong_value_is_explained(make_trainer, tiny_graph, training, epochs, sentence):
    with pytest.raises(InputError) as error:
        make_trainer("simple", **training).train(tiny_graph, epochs)
    assert sentence in str(error.value)


def test_a_graph_without_train_edges_is_refused(make_trainer, tiny_training_graph):
    listens = tiny_training_graph[LISTENS]
    listens.val_mask, listens.train_mask = ~listens.test_mask, torch.zeros_like(listens.train_mask)
    with pytest.raises(InputError, match="no train edge"):
        make_trainer().train(tiny_training_graph, 1)


def test_a_config_of_another_graph_is_refused(make_trainer, make_graph):
    with pytest.raises(InputError, match="num_users is 40, but the graph has 41 users; set num_users to 41"):
        make_trainer().train(make_graph(num_users=41), 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused(make_trainer):
    with pytest.raises(InputError, match="torch finds no GPU; set it to 'auto' or 'cpu'"):
        make_trainer(device="cuda")


def test_a_folder_that_cannot_be_written_is_explained(make_trainer, tiny_graph, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"checkpoint .* cannot be written .*check the rights and the free space"):
        make_trainer("simple", tmp_path / "file").train(tiny_graph, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_to_much_the_same(make_trainer, tiny_graph, tmp_path):
    losses = [
        make_trainer("simple", tmp_path / device, device=device).train(tiny_graph, 2)["history"][0]["loss"]
        for device in ("cpu", "cuda")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_saving_before_training_is_refused(make_trainer, tmp_path):
    with pytest.raises(InputError, match="call train"):
        make_trainer().save_model(tmp_path)


def test_a_graph_without_artists_trains(training_config, make_graph, tmp_path):
    graph = make_graph(num_artists=0)
    assert graph[BY].edge_index.shape == (2, 0)
    trainer = SimpleTrainer({"num_users": 40, "num_songs": 30, "num_artists": 0}, training_config, tmp_path)
    assert trainer.train(graph, 1)["epochs_run"] == 1


def test_a_callback_sees_every_epoch_and_its_yes_ends_the_training(make_trainer, tiny_graph):
    heard = []

    def hear(history):
        heard.append([record["epoch"] for record in history])
        return len(history) == 2

    trainer = make_trainer()
    trainer.epoch_callback = hear
    results = trainer.train(tiny_graph, 5)
    assert heard == [[1], [1, 2]]
    assert (results["epochs_run"], results["stopped_early"]) == (2, True)


def test_a_resumed_training_gives_its_callback_the_epochs_before_too(make_trainer, tiny_graph):
    def interrupt(history):
        if len(history) == 2:
            raise KeyboardInterrupt
        return False

    first = make_trainer()
    first.epoch_callback = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.train(tiny_graph, 3)
    heard = []
    second = make_trainer()
    second.epoch_callback = lambda history: bool(heard.append([record["epoch"] for record in history]))
    second.train(tiny_graph, 3)
    assert heard == [[1, 2], [1, 2, 3]]


def test_a_trainer_with_tests_at_end_off_does_not_test(make_trainer, tiny_training_graph, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setattr(trainer, "test", lambda graph: pytest.fail("test listens were measured"))
    trainer.tests_at_end = False
    assert trainer.train(tiny_training_graph, 1)["test"] == {}


def test_a_callback_that_never_stops_changes_nothing(make_trainer, tiny_training_graph, tmp_path):
    alone = make_trainer(output_dir=tmp_path / "alone").train(tiny_training_graph, 2)
    heard = make_trainer(output_dir=tmp_path / "heard")
    heard.epoch_callback = lambda history: False
    assert heard.train(tiny_training_graph, 2)["history"] == alone["history"]

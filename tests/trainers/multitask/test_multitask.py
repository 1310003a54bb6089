"""Heads beside the ranking: what they learn from, what they must not, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.errors import InputError
from data.graph import BY, LISTENS, node_counts
from data.split import SplitConfig
from data.training_graph import split_graph
from trainers.factory import create_trainer
from trainers.loop.model_files import load_score
from trainers.multitask.heads import UNCORRECTED, logistic_fit
from trainers.multitask.labels import TASKS, ArtistLabels
from trainers.multitask.multitask_objective import TaskWeights
from trainers.multitask.multitask_trainer import MultiTaskTrainer
from trainers.multitask.predictor import load_predictor
from trainers.sampling import train_pairs

CPU = torch.device("cpu")


@pytest.fixture
def make(make_trainer):
    return lambda *arguments, **training: make_trainer("multitask", *arguments, **training)


def without(graph, column):
    changed = graph.clone()
    del changed[LISTENS][column]
    return changed


# What a log has to have


@pytest.mark.parametrize(
    ("task", "column", "made_of"),
    [
        ("completion", "completion", "ms_played and duration_ms"),
        ("skip", "skips", "skipped"),
        ("relisten", "plays", "plays"),
    ],
)
def test_a_column_that_the_log_lacks_is_named_before_the_first_epoch(make, tiny_graph, tmp_path, task, column, made_of):
    trainer = make(tmp_path / "out", tasks=[task])
    with pytest.raises(InputError) as refused:
        trainer.train(without(tiny_graph, column), 1)
    assert str(refused.value) == (
        f"The task '{task}' needs the column '{column}' (in the log: {made_of}), which is not there; name it in "
        f"ingest.columns, or remove '{task}' from training_config.tasks."
    )
    assert trainer.current_epoch == 0
    assert not (tmp_path / "out").exists()


def test_artist_affinity_needs_artists(make_graph, training_config, tmp_path):
    graph = make_graph(num_artists=0)
    trainer = create_trainer("multitask", node_counts(graph), {**training_config, "tasks": ["artist"]}, tmp_path)
    with pytest.raises(InputError, match=r"task 'artist' needs the column 'artist' \(in the log: artist_id\), which"):
        trainer.train(graph, 1)


def test_a_task_without_its_column_is_no_matter_where_it_is_not_asked_for(make, tiny_graph):
    assert "relisten_ece" in make(tasks=["relisten"]).train(without(tiny_graph, "completion"), 1)["history"][0]


def test_a_label_that_is_the_same_everywhere_is_refused(make, tiny_graph):
    tiny_graph[LISTENS].plays = torch.ones_like(tiny_graph[LISTENS].plays)
    with pytest.raises(InputError) as refused:
        make().train(tiny_graph, 1)
    assert str(refused.value) == (
        "The task 'relisten' has the same target, 0, on every train listen, so there is nothing to predict; remove "
        "'relisten' from training_config.tasks."
    )


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"tasks": []}, "at least 1 item"),
        ({"tasks": ["skips"]}, "there is no task 'skips'. Did you mean 'skip'?"),
        ({"tasks": ["skip"], "task_weights": {"artist": 2.0}}, "weighs what is not among the tasks 'artist'"),
        ({"task_weights": {"skip": 0}}, "greater than 0"),
        ({"task_weights": "learned"}, "give a table of a weight for each task, or 'uncertainty'"),
    ],
)
def test_tasks_and_weights_that_mean_nothing_are_refused(make, keys, sentence):
    with pytest.raises(InputError) as refused:
        make(**keys)
    assert sentence in str(refused.value)


# Labels


def test_every_pair_gets_the_label_of_its_own_edge(tiny_training_graph):
    store, pairs = tiny_training_graph[LISTENS], train_pairs(tiny_training_graph)
    columns = (store[name][store.train_mask].tolist() for name in ("completion", "skips", "plays"))
    expected = {
        (user, song): (completion, skips / plays, float(plays > 1))
        for (user, song), completion, skips, plays in zip(pairs.T.tolist(), *columns, strict=True)
    }
    pairs = pairs[:, torch.randperm(pairs.shape[1])]
    for place, name in enumerate(("completion", "skip", "relisten")):
        found = TASKS[name].labels(tiny_training_graph, CPU).of(pairs)
        assert torch.equal(torch.stack([found.users, found.items]), pairs)
        wanted = [expected[user, song][place] for user, song in pairs.T.tolist()]
        assert found.targets.tolist() == pytest.approx(wanted, abs=1e-6)


def test_artists_are_compared_with_those_that_the_user_does_not_listen_to(tiny_training_graph):
    labels, pairs = ArtistLabels(tiny_training_graph, CPU), train_pairs(tiny_training_graph)
    first = {}
    for song, artist in tiny_training_graph[BY].edge_index.T.tolist():
        first.setdefault(song, artist)
    known = {(user, first[song]) for user, song in pairs.T.tolist() if song in first}
    found = labels.of(pairs)
    judged = [
        ((user, artist) in known) for user, artist in zip(found.users.tolist(), found.items.tolist(), strict=True)
    ]
    assert judged == found.targets.bool().tolist()
    assert int(found.targets.sum()) == sum(song in first for song in pairs[1].tolist()) < len(judged)


# What is learned from, and what is not


def other_labels(graph, trainer, parts):
    """The graph with other labels and weights on some of the kept pairs."""
    kept = trainer.objective.calibration_split(trainer.message_graph)
    chosen = {pair for part in parts for pair in map(tuple, getattr(kept, part).T.tolist())}
    changed, store = graph.clone(), graph[LISTENS]
    where = torch.tensor([pair in chosen for pair in map(tuple, store.edge_index.T.tolist())])
    assert where.any()
    for name in ("completion", "skips", "plays", "weight"):
        changed[LISTENS][name] = torch.where(where, store[name].flip(0), store[name])
    return changed


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_a_batch_of_kept_pairs_alone_changes_no_vector(make, model_config, tiny_training_graph, loss):
    """Without a local channel nothing learns from them; the last batch of an epoch may hold no other pair."""
    model_config.update(architecture="mf")
    del model_config["heads"]
    trainer = make(loss=loss, calibration_ratio=0.2, tasks=["relisten"])
    trainer.train(tiny_training_graph, 1)
    before = trainer.model.table.detach().clone()
    kept, trainer.optimizer = trainer.objective.calibration_split(trainer.message_graph).correct, sgd(trainer.model)
    assert trainer.train_on_pairs(trainer.message_graph, kept[:, :3]) == {"loss": 0.0}
    assert torch.equal(trainer.model.table, before)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1.0)


@pytest.mark.parametrize("model", [{}, {"local": False}, {"architecture": "lightgcn"}], ids=str)
def test_what_is_measured_teaches_nothing(model_config, training_config, tiny_training_graph, tmp_path, model):
    # confidence has a learned power in gat, so a weight that reached a message would change the loss
    keys = {**training_config, "calibration_ratio": 0.2, "use_scheduler": False, "patience": 9}
    config = {key: value for key, value in {**model_config, **model}.items() if model == {} or key != "heads"}

    def trained(graph, name):
        trainer = create_trainer("multitask", config, keys, tmp_path / name)
        return trainer, trainer.train(graph, 4)["history"]

    first, history = trained(tiny_training_graph, "first")
    graph = other_labels(tiny_training_graph, first, ("watch", "measure"))
    _, changed = trained(graph, "second")
    assert [record["loss"] for record in history] == [record["loss"] for record in changed]
    assert [record["completion_ece"] for record in history] != [record["completion_ece"] for record in changed]


def test_only_the_correction_learns_from_the_pairs_that_are_kept_for_it(make, tiny_training_graph, tmp_path):
    first = make(tmp_path / "a", calibration_ratio=0.2, use_scheduler=False)
    losses = [record["loss"] for record in first.train(tiny_training_graph, 2)["history"]]
    second = make(tmp_path / "b", calibration_ratio=0.2, use_scheduler=False)
    graph = other_labels(tiny_training_graph, first, ("correct",))
    assert [record["loss"] for record in second.train(graph, 2)["history"]] == losses
    assert first.heads.completion.trust.tolist() != second.heads.completion.trust.tolist()


def test_tasks_reach_the_vectors(make, tiny_graph, tmp_path):
    light, heavy = (make(tmp_path / str(weight), task_weights={"skip": weight}) for weight in (1e-6, 10.0))
    for trainer in (light, heavy):
        trainer.train(tiny_graph, 1)
    assert not torch.equal(light.model.table, heavy.model.table)


def test_uncertainty_weighs_less_what_cannot_be_predicted():
    weights = TaskWeights({"easy": 1.0, "hard": 1.0}, learned=True)
    losses = {"easy": torch.tensor(0.1), "hard": torch.tensor(2.0)}
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        torch.stack([weights.weighted(task, loss) for task, loss in losses.items()]).sum().backward()
        optimizer.step()
    for task, loss in losses.items():  # where exp(-s) L + s / 2 has its minimum
        assert float(weights.log_variance[task].detach().exp()) == pytest.approx(2 * float(loss), rel=1e-3)


def test_fixed_weights_are_factors():
    weights = TaskWeights({"skip": 0.5}, learned=False)
    assert float(weights.weighted("skip", torch.tensor(3.0))) == 1.5
    assert not list(weights.parameters())


def test_a_correction_recovers_what_made_the_targets():
    rng = np.random.default_rng(0)
    inputs = np.concatenate([np.ones((20_000, 1)), rng.normal(size=(20_000, 4))], 1)
    truth = np.array([0.3, 0.5, 1.0, -0.5, 0.0])
    targets = 1 / (1 + np.exp(-inputs @ truth))
    assert logistic_fit(inputs, targets, np.array(UNCORRECTED)) == pytest.approx(truth, abs=0.01)
    assert logistic_fit(inputs[:0], targets[:0], np.array(UNCORRECTED)).tolist() == list(UNCORRECTED)


@pytest.fixture
def graph_of_taste(make_listens, make_graph):
    """Songs of the user's own group are heard to the end, others are not; two in five listens are of other groups."""
    table = make_listens(num_users=150, num_songs=60, num_rows=5000, seed=1)
    own = np.asarray(table["user"]) % 3 == np.asarray(table["song"]) % 3
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(own))
    completion = pa.array(np.where(own, 0.9, 0.4) + noise, pa.float32())
    table = table.set_column(table.column_names.index("completion"), "completion", completion)
    return make_graph(num_users=150, num_songs=60, table=table)


@pytest.mark.parametrize("architecture", ["gat", "lightgcn", "mf"])
def test_predicts_completion_of_listens_that_are_held_out(graph_of_taste, training_config, tmp_path, architecture):
    graph = split_graph(graph_of_taste, SplitConfig())
    model = {**node_counts(graph), "architecture": architecture, "embedding_dim": 16}
    keys = {**training_config, "batch_size": 256, "calibration_ratio": 0.1, "tasks": ["completion"]}
    trainer = create_trainer("multitask", model, keys, tmp_path)
    results = trainer.train(graph, 8)
    test = graph[LISTENS].test_mask
    target = graph_of_taste[LISTENS].completion[test]
    predicted = trainer.predict("completion", *graph[LISTENS].edge_index[:, test])
    assert float((predicted - target).square().mean()) < 0.8 * float(target.var())
    assert results["test"]["completion_r2"] > 0.1
    assert results["test"]["completion_ece"] < 0.2


# Every kind of training


@pytest.mark.parametrize(
    "keys",
    [{"num_neighbors": [3, 2]}, {"loss": "bpr"}, {"task_weights": "uncertainty"}, {"task_weights": {"skip": 3.0}}],
    ids=str,
)
def test_metrics_of_every_task_are_reported_and_finite(make, tiny_graph, keys):
    results = make(calibration_ratio=0.3, **keys).train(tiny_graph, 2)
    for record in (*results["history"], results["test"]):
        assert {f"{task}_{metric}" for task in TASKS for metric in ("auc", "ece")} <= set(record)
        assert {f"{task}_r2" for task in ("completion", "skip", "relisten")} <= set(record)
        assert np.isfinite(list(record.values())).all()


def test_a_task_can_be_watched(make, tiny_graph):
    results = make(monitor="completion_auc", calibration_ratio=0.3).train(tiny_graph, 3)
    assert results["best_metric"] == max(record["completion_auc"] for record in results["history"])


def test_a_refit_has_heads_too(make, tiny_graph, tmp_path):
    trainer = make(tmp_path / "refit")
    trainer.refit(tiny_graph, [{"epoch": 1, "lr": 0.01}])
    assert trainer.heads.completion.trust.tolist() != list(UNCORRECTED)
    assert trainer.predict("completion", torch.tensor([0]), torch.tensor([1])).shape == (1,)


# What is kept


def states(trainer):
    return {**trainer.heads.state_dict(), **trainer.objective.weights.state_dict()}


def test_heads_and_learned_weights_of_an_interrupted_run_end_the_same(
    model_config, training_config, tiny_graph, tmp_path
):
    class Interrupted(MultiTaskTrainer):
        dies = True

        def on_epoch_end(self, train_metrics, eval_metrics):
            if self.current_epoch == 3 and self.dies:
                raise KeyboardInterrupt
            return False

    def build(folder):
        return Interrupted(model_config, {**training_config, "task_weights": "uncertainty"}, tmp_path / folder)

    with pytest.raises(KeyboardInterrupt):
        build("cut").train(tiny_graph, 5)
    Interrupted.dies = False
    resumed, whole = build("cut"), build("whole")
    for trainer in (resumed, whole):
        trainer.train(tiny_graph, 5)
    ours, theirs = states(resumed), states(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_best_epochs_heads_are_put_back_with_its_weights(make, tiny_graph, tmp_path, monkeypatch):
    falling = lambda self, graph, part: {"recall@5": 1 / (1 + self.current_epoch)}  # noqa: E731
    monkeypatch.setattr(MultiTaskTrainer, "ranking_metrics", falling)
    one, three = make(tmp_path / "one"), make(tmp_path / "three")
    one.train(tiny_graph, 1)
    assert three.train(tiny_graph, 3)["best_epoch"] == 1
    users, songs = torch.arange(30), torch.arange(30)
    assert torch.equal(one.predict("skip", users, songs), three.predict("skip", users, songs))


def test_training_again_begins_with_new_heads(make, tiny_graph, tmp_path):
    trainer = make(tmp_path, resume=False)
    first = [trainer.train(tiny_graph, 2)["history"][-1]["loss"] for _ in range(2)]
    assert first[0] == first[1]


def test_a_saved_model_predicts_the_same(make, tiny_graph, tmp_path):
    trainer = make(tmp_path / "out")
    trainer.train(tiny_graph, 2)
    saved = load_predictor(trainer.save_model(tmp_path / "model"))
    users = torch.arange(40)
    for task, count in (("completion", 30), ("artist", 6)):
        items = users % count
        predicted = trainer.predict(task, users, items)
        assert torch.equal(saved.predict(task, users, items), predicted)
        assert bool(((predicted > 0) & (predicted < 1)).all())
    assert load_score(tmp_path / "model")(users).shape == (40, 30)


def test_heads_of_another_model_do_not_stay_in_its_folder(make, make_trainer, tiny_graph, tmp_path):
    for trainer in (make(tmp_path / "a"), make_trainer("advanced", tmp_path / "b")):
        trainer.train(tiny_graph, 1)
        trainer.save_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"holds no heads\.safetensors; train the model with the trainer 'multitask'"):
        load_predictor(tmp_path / "model")


def test_only_what_was_learned_can_be_predicted(make, tiny_graph):
    trainer, nodes = make(tasks=["skip"]), torch.tensor([0])
    with pytest.raises(InputError, match=r"nothing to predict with: call train\(graph, num_epochs\) first"):
        trainer.predict("skip", nodes, nodes)
    trainer.train(tiny_graph, 1)
    with pytest.raises(InputError, match=r"The model has no head for the task 'completion'. Allowed: skip."):
        trainer.predict("completion", nodes, nodes)

"""What leaves a client of a federated training, what it costs in privacy, and how Flower runs and ends."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm as normal

from data.code.digests import code_digests
from data.errors import InputError
from data.graph import BY, LISTENS, message_graph, node_counts
from evaluation.audit.planting import run_canary
from models.factory import create_model
from trainers.factory import create_trainer, trainer_class
from trainers.federated import flower_process
from trainers.federated.client import (
    CATALOGUE,
    Client,
    client_graph,
    groups_of_users,
    load_parameters,
    split_parameters,
)
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.flower_process import flower_python
from trainers.federated.privacy import clipped, noisy
from trainers.leakage_probe import TrainerProbe
from trainers.loop.random_streams import stream
from trainers.multitask.label_metrics import auc

CLIPPED = {"clipping_norm": 0.1, "local_optimizer": "sgd", "lr": 0.5, "num_negatives": 0}
ARCHITECTURES = [{"architecture": "mf"}, {"architecture": "lightgcn"}, {"architecture": "gat", "local": False}]


def length(update):
    return math.sqrt(sum(float(values.square().sum()) for values in update.values()))


# Parts: whose is what


def test_groups_hold_every_user_once_and_are_of_about_one_size():
    groups = groups_of_users(23, 5, seed=3)
    assert torch.equal(torch.cat(groups).sort().values, torch.arange(23))
    assert sorted(len(group) for group in groups) == [4, 4, 5, 5, 5]
    assert all(torch.equal(group, again) for group, again in zip(groups, groups_of_users(23, 5, 3), strict=True))
    assert not torch.equal(groups[0], groups_of_users(23, 5, seed=4)[0])


def test_a_client_has_its_own_users_listens_and_the_whole_catalogue(tiny_training_graph):
    seen, users = message_graph(tiny_training_graph), torch.tensor([2, 7, 30])
    part = client_graph(seen, users)
    own = torch.isin(seen[LISTENS].edge_index[0], users)
    assert torch.equal(users[part[LISTENS].edge_index[0]], seen[LISTENS].edge_index[0, own])
    assert torch.equal(part[LISTENS].edge_index[1], seen[LISTENS].edge_index[1, own])
    assert torch.equal(part[LISTENS].weight, seen[LISTENS].weight[own])
    assert torch.equal(part[BY].edge_index, seen[BY].edge_index)
    assert node_counts(part) == {**node_counts(seen), "num_users": 3}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda case: case["architecture"])
def test_users_rows_are_apart_from_what_is_shared(tiny_graph, architecture):
    model = create_model({**architecture, **node_counts(tiny_graph), "embedding_dim": 8}, 0)
    users, shared = split_parameters(model)
    assert users.shape == (40, 8)
    assert len(shared[CATALOGUE]) == len(model.table) - 40
    assert set(shared) == {CATALOGUE, *model.state_dict()} - {"table"}
    other = create_model({**architecture, **node_counts(tiny_graph), "embedding_dim": 8}, 1)
    load_parameters(other, users, shared)
    assert all(torch.equal(values, model.state_dict()[name]) for name, values in other.state_dict().items())


# Clients


@pytest.fixture
def make_client(tiny_graph):
    """A client of the first ten users, with the parameters that its round starts from."""

    def make(architecture=None, graph=None, **training):
        model_config = {**(architecture or {"architecture": "mf"}), **node_counts(tiny_graph), "embedding_dim": 8}
        users, shared = split_parameters(create_model({**model_config, "dropout": 0.0}, 0))
        given = {"batch_size": 64, "num_clients": 4, **training}
        config = FederatedConfig.parse(given, "training_config")
        own = client_graph(message_graph(tiny_graph), torch.arange(10)) if graph is None else graph
        client = Client(0, {**model_config, "dropout": 0.0}, config, own)
        client.users = users[:10].clone()
        return client, shared

    return make


def update_of(client, shared):
    sent = client.train(shared, client.config.lr, 1)
    assert sent.shared.keys() == shared.keys()
    return {name: values - shared[name] for name, values in sent.shared.items()}


def without_listens_of(graph, user):
    kept = graph.clone()
    rows = graph[LISTENS].edge_index[0] != user
    kept[LISTENS].edge_index, kept[LISTENS].weight = graph[LISTENS].edge_index[:, rows], graph[LISTENS].weight[rows]
    return kept


@pytest.mark.parametrize("training", [{}, CLIPPED, {"strategy": "fedprox", "proximal_mu": 0.1}])
def test_a_round_moves_the_clients_users_and_what_is_shared(make_client, training):
    client, shared = make_client(**training)
    before = client.users.clone()
    assert length(update_of(client, shared)) > 0
    assert not torch.equal(client.users, before)
    assert math.isfinite(client.loss)


def test_fedprox_stays_near_the_rounds_start(make_client):
    free, held = (
        length(update_of(*make_client(lr=0.05, local_epochs=4, **more)))
        for more in ({}, {"strategy": "fedprox", "proximal_mu": 10.0})
    )
    assert held < 0.5 * free


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda case: case["architecture"])
def test_a_users_listens_change_the_sum_by_the_clipping_norm_at_most(make_client, tiny_graph, architecture):
    """The sensitivity that the account stands on: all listens of a user, or none."""
    with_user, shared = make_client(architecture, **CLIPPED)
    without, _ = make_client(architecture, graph=without_listens_of(with_user.graph, 4), **CLIPPED)
    ours, theirs = update_of(with_user, shared), update_of(without, shared)
    gap = length({name: 10 * (values - theirs[name]) for name, values in ours.items()})  # 10 users: sums, not means
    assert 0 < gap <= 0.1 + 1e-5


def test_without_clipping_one_user_may_change_more(make_client):
    with_user, shared = make_client(lr=0.05)
    without, _ = make_client(graph=without_listens_of(with_user.graph, 4), lr=0.05)
    ours, theirs = update_of(with_user, shared), update_of(without, shared)
    assert length({name: values - theirs[name] for name, values in ours.items()}) > 0.1


def test_noise_is_on_every_number_and_of_the_stated_size(make_client):
    quiet, loud = (
        update_of(*make_client(**CLIPPED, user_rate=0.5, noise_multiplier=multiplier)) for multiplier in (0.0, 20.0)
    )
    noise = (loud[CATALOGUE] - quiet[CATALOGUE]).flatten() * 10 * 0.5  # it is divided by the expected users
    assert (noise != 0).all()
    assert float(noise.std()) == pytest.approx(20 * 0.1, rel=0.15)


def test_only_drawn_users_take_part_and_the_others_do_not_move(make_client):
    client, shared = make_client(**CLIPPED, user_rate=0.5)
    before = client.users.clone()
    update_of(client, shared)
    moved = (client.users != before).any(1)
    coins = torch.rand(10, generator=stream(0, "client 0 round 1 coins"))
    assert torch.equal(moved, coins < 0.5)
    assert 0 < int(moved.sum()) < 10


def test_the_weight_of_a_clipped_update_says_nothing_about_listens(make_client, tiny_graph):
    client, shared = make_client()
    assert client.train(shared, 0.01, 1).weight == client.graph[LISTENS].edge_index.shape[1]
    client, shared = make_client(**CLIPPED)
    assert client.train(shared, 0.01, 1).weight == 10


def test_a_client_without_listens_sends_back_what_it_got(make_client, tiny_graph):
    nobody = client_graph(message_graph(tiny_graph), torch.arange(10))
    for user in range(10):
        nobody = without_listens_of(nobody, user)
    for training in ({}, CLIPPED):
        client, shared = make_client(graph=nobody, **training)
        assert length(update_of(client, shared)) == 0


# Privacy


def test_clipping_shortens_long_updates_only():
    update = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    assert length(clipped(update, 1.0)) == pytest.approx(1.0)
    assert clipped(update, 1.0)["b"].item() == pytest.approx(0.8)
    assert all(torch.equal(values, update[name]) for name, values in clipped(update, 6.0).items())
    assert length(clipped({"a": torch.zeros(2)}, 1.0)) == 0


def test_noise_has_its_deviation():
    noise = noisy({"a": torch.zeros(20_000)}, 0.3, torch.Generator().manual_seed(0))["a"]
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)


def test_the_area_is_the_share_of_pairs_in_order():
    score, positive = torch.tensor([1.0, 2.0, 2.0, 0.0]), torch.tensor([False, True, False, True])
    assert auc(score.numpy(), positive.numpy()) == pytest.approx((1 + 0.5 + 0 + 0) / 4)


# What is refused


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"noise_multiplier": 1.0}, "clipping_norm, which is not set; set clipping_norm, for example 0.1"),
        ({"user_rate": 0.5}, "user_rate is for clipped updates; set clipping_norm or remove user_rate"),
        ({"strategy": "fedprox"}, "proximal_mu is 0 with strategy 'fedprox'; fedprox takes a proximal_mu above 0"),
        ({"proximal_mu": 0.1}, "proximal_mu is 0.1 with strategy 'fedavg'"),
        ({"strategy": "fedprox", "proximal_mu": 1.0, "server_lr": 2.0}, "server_lr is for fedavg"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(make_federated, keys, sentence):
    with pytest.raises(InputError) as error:
        make_federated(**keys)
    assert sentence in str(error.value)


def test_the_local_channel_is_refused(model_config, training_config):
    with pytest.raises(InputError) as error:
        create_trainer("federated", model_config, training_config)
    assert str(error.value) == (
        "The local channel of 'gat' counts the listens of all users, which no client may see and which averaging "
        "cannot add up in secret; set local to false in model_config for the trainer 'federated'."
    )


def test_without_flowers_environment_the_command_that_makes_it_is_named(make_federated, tiny_graph, monkeypatch):
    monkeypatch.setattr(flower_process, "ENVIRONMENT", "no-such-environment")
    with pytest.raises(InputError, match=r"no-such-environment is not there; make it with `make federated`\.$"):
        make_federated().train(tiny_graph, 1)


def test_what_runs_in_flowers_environment_is_part_of_a_runs_code():
    assert {"trainers.federated.flower_server", "trainers.federated.client"} <= set(
        code_digests(("trainers.federated.federated_trainer",))
    )


# On Flower


@pytest.fixture
def make_federated(model_config, training_config, tmp_path):
    def make(kind="federated", folder="out", **training):
        model = {**model_config, "architecture": "mf"}
        del model["heads"]
        given = {**training_config, "num_clients": 4, "seed": 1, **training}
        return trainer_class(kind)(model_config=model, training_config=given, output_dir=tmp_path / folder)

    return make


def in_flowers_environment(code):
    """Run a snippet where Flower is, and return what it prints."""
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "FLWR_TELEMETRY_ENABLED": "0"}
    ended = subprocess.run([flower_python(), "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


AVERAGING = """
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.flower_server import OFFLINE, REFUSED, create_strategy
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

def ask():
    return Message(RecordDict(), dst_node_id=2, message_type="train")

def reply(client, value, weight):
    metrics = MetricRecord({"num-examples": weight, "client": client})
    arrays = ArrayRecord({"w": torch.tensor([value])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=ask())

class Three:
    def get_node_ids(self):
        return [2, 3, 4]

gone = Message(Error(OFFLINE, "offline"), reply_to=ask())
for keys in ({}, {"server_lr": 10.0}, {"strategy": "fedprox", "proximal_mu": 0.5}):
    strategy, config = create_strategy(FederatedConfig(**keys), 3), ConfigRecord()
    messages = list(strategy.configure_train(1, ArrayRecord({"w": torch.tensor([0.5])}), config, Three()))
    arrays, _ = strategy.aggregate_train(1, [reply(2, 3.0, 1), gone, reply(0, 1.0, 3)])
    average, mu = float(arrays.to_torch_state_dict()["w"]), config.get("proximal-mu")
    print(len(messages), average, strategy.answered, mu, sep="|")
try:
    strategy.aggregate_train(1, [Message(Error(REFUSED, "Because."), reply_to=ask())])
except Exception as error:
    print(type(error).__name__, error, sep="|")
"""


@pytest.mark.slow
def test_flowers_strategies_average_who_answered_by_weight(flower):
    assert in_flowers_environment(AVERAGING) == [
        "3|1.5|[2]|None",  # (1 * 3 + 3 * 1) / 4
        "3|10.5|[2]|None",  # 0.5 + 10 * (1.5 - 0.5)
        "3|1.5|[2]|0.5",
        "InputError|Because.",
    ]


ACCOUNT = """
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.privacy import epsilon, epsilons
for rate, multiplier, rounds in ((1.0, 2.0, 10), (0.1, 2.0, 10), (1.0, 2.0, 20), (1.0, 4.0, 10)):
    config = FederatedConfig(clipping_norm=0.1, noise_multiplier=multiplier, user_rate=rate)
    print(epsilon(config, [multiplier] * rounds))
config = FederatedConfig(clipping_norm=0.1, noise_multiplier=2.0)
print(epsilons(config, [4] * 10)["epsilon_of_averages"])
print(epsilons(config, [4, 0, 4])["epsilon"], epsilon(config, [2.0] * 2))
"""


@pytest.mark.slow
def test_the_account_is_that_of_the_gaussian_mechanism(flower):
    full, sampled, longer, louder, averages, heard, two = map(float, in_flowers_environment(ACCOUNT))
    exact = brentq(lambda epsilon: gaussian_delta(epsilon, 2.0 / math.sqrt(10)) - 1e-5, 0.01, 50)
    assert exact <= full <= 1.2 * exact  # the Renyi account is an upper bound
    assert sampled < 0.3 * full
    assert longer > full > louder
    assert averages == pytest.approx(louder)  # four clients' noise adds up to twice one client's
    assert heard == two  # a round that nobody answered released nothing


def gaussian_delta(epsilon, deviation):
    """Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, for sensitivity 1."""
    left, right = 1 / (2 * deviation) - epsilon * deviation, -1 / (2 * deviation) - epsilon * deviation
    return normal.cdf(left) - math.exp(epsilon) * normal.cdf(right)


PRIVATE = {**CLIPPED, "noise_multiplier": 1.0, "user_rate": 0.5, "offline_rate": 0.3, "server_lr": 20.0}


@pytest.mark.slow
def test_a_private_run_tells_who_answered_and_what_it_cost(flower, make_federated, tiny_graph):
    history = make_federated(**PRIVATE).train(tiny_graph, 4)["history"]
    assert all({"loss", "clients", "epsilon", "epsilon_of_averages"} <= set(record) for record in history)
    spent = [record["epsilon"] for record in history]
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]
    assert all(record["epsilon_of_averages"] <= record["epsilon"] for record in history)
    assert min(record["clients"] for record in history) < 4


@pytest.mark.slow
def test_an_interrupted_private_run_ends_the_same_and_its_account_goes_on(flower, make_federated, tiny_graph):
    class Dying(trainer_class("federated")):
        dies = True

        def on_epoch_end(self, train_metrics, eval_metrics):
            if self.current_epoch == 3 and self.dies:
                raise KeyboardInterrupt
            return False

    more = {**PRIVATE, "rounds_per_epoch": 2}
    with pytest.raises(KeyboardInterrupt):
        kind(make_federated, Dying, "cut", more).train(tiny_graph, 4)
    Dying.dies = False
    resumed, whole = kind(make_federated, Dying, "cut", more), kind(make_federated, Dying, "whole", more)
    assert resumed.train(tiny_graph, 4)["history"] == whole.train(tiny_graph, 4)["history"]
    assert torch.equal(resumed.model.table, whole.model.table)
    assert resumed.answered == whole.answered
    assert len(whole.answered) == 8


def kind(make_federated, trainer, folder, training):
    like = make_federated(**training)
    config = like.model.config.model_dump()
    given = {key: getattr(like.config, key) for key in like.config.model_fields_set}
    return trainer(model_config=config, training_config=given, output_dir=like.output_dir.parent / folder)


@pytest.mark.slow
def test_nothing_is_left_of_flower_after_a_training(flower, make_federated, tiny_graph, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen = []

    class Watching(trainer_class("federated")):
        def evaluate(self, graph):
            seen.append(self._flower.process)
            return super().evaluate(graph)

    kind(make_federated, Watching, "out", {}).train(tiny_graph, 2)
    assert len(set(seen)) == 1  # one process for all epochs
    with pytest.raises(ProcessLookupError):
        os.killpg(seen[0].pid, 0)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_flowers_end_and_a_bad_loss_are_told_in_a_sentence(flower, make_federated, tiny_graph, tmp_path):
    class Killing(trainer_class("federated")):
        def on_epoch_end(self, train_metrics, eval_metrics):
            self._flower.process.kill()
            return False

    with pytest.raises(InputError, match=r"Flower's process ended with code -9; Flower's log is kept in .*flower\.log"):
        kind(make_federated, Killing, "killed", {}).train(tiny_graph, 2)
    assert (tmp_path / "killed" / "flower.log").read_text()
    with pytest.raises(InputError, match=r"The loss is nan in epoch \d, batch \d+; lower lr"):
        make_federated(lr=1e38, local_optimizer="sgd", temperature=1e-3).train(tiny_graph, 3)


@pytest.mark.slow
def test_a_refit_trains_on_all_listens(flower, make_federated, tiny_graph):
    records = make_federated().train(tiny_graph, 2)["history"]
    assert make_federated(folder="refit").refit(tiny_graph, records)["epochs_run"] == 2


@pytest.mark.slow
def test_what_is_held_out_reaches_no_client(flower, tiny_training_graph):
    found = run_canary(tiny_training_graph, TrainerProbe("federated", {"architecture": "mf", "embedding_dim": 8}, {}))
    names = {"messages", "embeddings", "weights"}
    assert found.same_when_held_out == dict.fromkeys(names, True)
    assert found.changed_in_train == dict.fromkeys(names, True)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES[1:], ids=lambda case: case["architecture"])
def test_a_users_vector_is_made_of_its_own_clients_listens(flower, tiny_graph, training_config, tmp_path, architecture):
    model = {**architecture, **node_counts(tiny_graph), "embedding_dim": 8}
    trainer = create_trainer("federated", model, {**training_config, "num_clients": 4, "lr": 0.05}, tmp_path)
    trainer.train(tiny_graph, 1)
    mine, other = groups_of_users(40, 4, 0)[:2]
    changed = without_listens_of(tiny_graph, int(other[0]))
    ours, theirs = trainer.embeddings(tiny_graph), trainer.embeddings(changed)
    assert torch.equal(ours.user[mine], theirs.user[mine])
    assert not torch.equal(ours.user[other], theirs.user[other])
    assert torch.equal(ours.song, theirs.song)


@pytest.mark.slow
def test_flowers_ray_simulation_gives_the_same_weights(flower, make_federated, tiny_graph):
    trainers = [make_federated(runtime=runtime, folder=runtime, **PRIVATE) for runtime in ("in_process", "ray")]
    for trainer in trainers:
        trainer.train(tiny_graph, 2)
    assert torch.equal(trainers[0].model.table, trainers[1].model.table)
    assert trainers[0].history == trainers[1].history

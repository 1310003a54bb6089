"""Flower's side of a federated training: the apps of the server and of the clients.

It runs in Flower's own environment (``trainers.federated.flower_main``). The training writes one line of JSON for each
epoch to the standard input; the end of the input is the end of the federation, however the training ended. Everything
between server and clients is a Flower message: shared parameters and their weight.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedProx
from flwr.supercore.task_identity import TaskIdentity

from data.errors import InputError
from data.machine import cores
from trainers.federated.client import Client
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.privacy import epsilons
from trainers.federated.shared_folder import (
    ClientFolder,
    ClientState,
    EpochRequest,
    EpochResponse,
    FederationSpec,
    SharedFolder,
)
from trainers.loop.random_streams import stream

OFFLINE, REFUSED = 900, 901
"""Codes of a client's errors that are not Flower's own: it dropped out; it cannot train."""

SERVER = 1
"""The server's node; in this process the clients are the nodes after it."""


def run(folder: SharedFolder, spec: FederationSpec) -> None:
    """Start Flower where ``runtime`` says."""
    server, clients = server_app(folder, spec), client_app(folder.folder, spec.config())
    if spec.config().runtime == "ray":
        from flwr.simulation import run_simulation  # slow to import

        own_files = {"num_cpus": cores(), "_temp_dir": str(folder.folder / "ray")}
        resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0}, "init_args": own_files}
        run_simulation(server, clients, spec.num_clients, backend_config=resources)
    else:
        grid = InProcessGrid(clients, spec.num_clients)
        server(grid, Context(0, SERVER, {}, RecordDict(), {}))


# The clients


def client_app(folder: Path, config: FederatedConfig) -> ClientApp:
    """Return the app that runs at each client."""

    def drop_out(message: Message, context: Context, answer: Any) -> Message:
        """Let some clients not answer in a round, as if switched off; this is a Flower mod."""
        generator = stream(config.seed, f"offline {_number(context)} round {_round(message)}")
        if float(torch.rand((), generator=generator)) < config.offline_rate:
            return Message(Error(OFFLINE, "offline"), reply_to=message)
        return answer(message, context)

    app = ClientApp(mods=[drop_out])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            return Message(_trained(folder, _number(context), message), reply_to=message)
        except InputError as error:
            return Message(Error(REFUSED, str(error)), reply_to=message)

    return app


def _trained(folder: Path, number: int, message: Message) -> RecordDict:
    """Train one round at one client; the content that is returned is all that leaves it."""
    files, client = ClientFolder(folder, number), _client(folder, number)
    client.users = files.read_state().users
    shared = message.content["arrays"].to_torch_state_dict()
    update = client.train(shared, float(message.content["config"]["lr"]), _round(message))
    files.write_state(ClientState(client.users, client.loss, _round(message)))
    weight = MetricRecord({"num-examples": update.weight, "client": number})
    return RecordDict({"arrays": ArrayRecord(update.shared), "metrics": weight})


@cache
def _client(folder: Path, number: int) -> Client:
    """Return a client with its graph, read once a process; its vectors are in a file, since Ray moves clients."""
    spec = FederationSpec.read(SharedFolder(folder).spec)
    return Client(number, spec.model_config_of_all, spec.config(), ClientFolder(folder, number).graph())


def _number(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _round(message: Message) -> int:
    """Return the round's number in the whole training; Flower counts within an epoch."""
    config = message.content["config"]
    return int(config["rounds-before"]) + int(config["server-round"])


# The server


def server_app(folder: SharedFolder, spec: FederationSpec) -> ServerApp:
    """Return the app that runs at the server: one run of Flower's strategy for each requested epoch."""
    app, config = ServerApp(), spec.config()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        for line in sys.stdin:
            request = EpochRequest.model_validate_json(line)
            strategy = create_strategy(config, spec.num_clients)
            start = folder.read_request()
            given = ConfigRecord({"lr": request.lr, "rounds-before": request.rounds_before})
            result = strategy.start(grid, ArrayRecord(start), config.rounds_per_epoch, train_config=given)
            privacy = epsilons(config, [*request.answered_before, *strategy.answered])
            shared = result.arrays.to_torch_state_dict() if any(strategy.answered) else start
            folder.write_response(EpochResponse(answered=strategy.answered, privacy=privacy), shared)

    return app


def create_strategy(config: FederatedConfig, num_clients: int) -> Any:
    """Return Flower's FedAvg (with a server learning rate) or FedProx, over all clients in each round."""
    sizes = {"min_train_nodes": num_clients, "min_available_nodes": num_clients, "fraction_evaluate": 0.0}
    if config.strategy == "fedprox":
        return OrderedFedProx(**sizes, proximal_mu=config.proximal_mu)
    return OrderedFedAvg(**sizes, server_learning_rate=config.server_lr)


class OrderedAggregation(FedAvg):
    """Averages in the order of the clients, since a sum of floats depends on it, and counts the answers.

    Attributes:
        answered: how many clients answered in each round.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, train_metrics_aggr_fn=lambda replies, weight: MetricRecord())
        self.answered: list[int] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See Flower's ``Strategy``; raises InputError with the sentence of a client that cannot train."""
        replies = list(replies)
        for reply in replies:
            if reply.has_error() and reply.error.code != OFFLINE:
                raise InputError(str(reply.error.reason))
        answers = [reply for reply in replies if not reply.has_error()]
        self.answered.append(len(answers))
        by_client = sorted(answers, key=lambda answer: int(answer.content["metrics"]["client"]))
        return super().aggregate_train(server_round, by_client)


class OrderedFedAvg(OrderedAggregation, FedAvgM):
    """Flower's FedAvg with a server learning rate and no momentum."""


class OrderedFedProx(OrderedAggregation, FedProx):
    """Flower's FedProx."""


class InProcessGrid(Grid):
    """Carries Flower's messages to clients in the same process, one after another.

    Nothing has to be started: Ray takes half a minute to start, which is long for a small simulation.
    """

    def __init__(self, clients: ClientApp, count: int) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER
        nodes = {SERVER + 1 + number: {"partition-id": number, "num-partitions": count} for number in range(count)}
        self.contexts = {node: Context(1, node, own, RecordDict(), {}) for node, own in nodes.items()}
        self.clients = clients
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """There is one run only."""

    @property
    def run(self) -> Any:
        """There is one run only."""
        raise NotImplementedError

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        """Return a message; deprecated by Flower."""
        return Message(*arguments, **options)

    def get_node_ids(self) -> Iterable[int]:
        """Return the clients."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages, and yield a key for each answer."""
        started = time.time_ns()
        for place, message in enumerate(messages):
            key = f"{started}-{place}"
            self._replies[key] = self.clients(message, self.contexts[message.metadata.dst_node_id])
            yield key

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers."""
        return [self._replies.pop(key) for key in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and pull the answers; nothing is ever late."""
        return self.pull_messages(self.push_messages(messages))

"""Federated training on Flower: listens and user vectors stay with groups of users, the rest is averaged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from models.base import Embeddings, TableModel
from models.factory import create_model
from models.graph.graph_cache import GraphCache
from trainers.advanced import AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.federated.client import client_graph, groups_of_users, load_parameters, split_parameters
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.flower_process import FlowerProcess
from trainers.federated.privacy import Parameters
from trainers.federated.shared_folder import EpochRequest, FederationSpec
from trainers.loop.training_results import EpochRecord, TrainingResults


class ClientData(NamedTuple):
    """The users of one client (G,), ascending, and its graph, in which they are renumbered."""

    users: Tensor
    graph: HeteroData


class FederatedTrainer(AdvancedTrainer):
    """Trains without gathering the listens: each client trains on its own users, and the server averages updates.

    A client is a group of users. Its listens and its users' vectors stay with it. Rows of songs and artists and all
    other parameters are sent, and averaged by Flower's FedAvg or FedProx. An epoch is ``rounds_per_epoch`` rounds;
    evaluation, early stopping, learning rate, checkpoints and resuming are those of ``AdvancedTrainer``.

    With ``clipping_norm`` each user trains alone, and what a user changes of the shared parameters is clipped; with
    ``noise_multiplier`` each client sends the sum with noise on every number, and the history has ``epsilon``; see
    ``trainers.federated.privacy``.

    This is a simulation on one machine: to measure, it reads the user vectors and losses that a deployment would never
    see, and its noise comes from ``seed``, where a deployment needs a secret one.

    Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017;
    Ammad-ud-din et al., "Federated Collaborative Filtering for Privacy-Preserving Personalized Recommendation System",
    2019 (user vectors stay, song vectors are shared).

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``FederatedConfig`` too.

    Raises:
        InputError: for a model with a local channel, or one that does not keep user vectors as rows of a table.
    """

    Config: ClassVar[type[TrainingConfig]] = FederatedConfig
    config: FederatedConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._check_model()
        self.answered: list[int] = []
        self._flower: FlowerProcess | None = None
        self._clients_by_graph: GraphCache[list[ClientData]] = GraphCache()

    def train(self, graph: HeteroData, num_epochs: int) -> TrainingResults:
        """See ``BaseTrainer.train``; Flower runs from the first epoch to the end."""
        self.answered = []
        try:
            return super().train(graph, num_epochs)
        finally:
            self._end_flower()

    def refit(self, graph: HeteroData, history: Sequence[EpochRecord]) -> TrainingResults:
        """See ``BaseTrainer.refit``."""
        self.answered = []
        try:
            return super().refit(graph, history)
        finally:
            self._end_flower()

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Run the epoch's rounds: ``loss`` of the clients' last round, ``clients`` that answered, ``epsilon``."""
        clients, rate = self._clients(graph), self.optimizer.param_groups[0]["lr"]
        flower = self._flower = self._flower or self._start_flower(clients)
        before = len(self.answered)
        users, shared = self._parameters()
        request = EpochRequest(lr=rate, rounds_before=before, answered_before=self.answered)
        response, shared = flower.run_epoch(request, shared)
        self.answered = [*self.answered, *response.answered]
        states = [client.read_state() for client in flower.clients]
        for client, state in zip(clients, states, strict=True):
            users[client.users] = state.users
        load_parameters(self.model, users, shared)
        losses = [state.loss for state in states if state.last_round > before]
        loss = {"loss": sum(losses) / len(losses)} if losses else {}
        return {**loss, "clients": sum(response.answered) / len(response.answered), **response.privacy}

    @torch.no_grad()
    def embeddings(self, graph: HeteroData) -> Embeddings:
        """Return what each side can compute: a client its users' vectors from its listens, the server those of songs.

        Songs are encoded from the shared parameters and the catalogue alone, since nobody has all listens.
        """
        clients, (users, shared) = self._clients(self._message_graph_of(graph)), self._parameters()
        vectors = torch.empty_like(users)
        for client in clients:
            vectors[client.users] = self._encoded(client.graph, users[client.users], shared).user
        one = clients[0].graph
        catalogue = client_graph(one, torch.tensor([int(one["user"].num_nodes)]))  # of a user without listens
        return Embeddings(vectors, self._encoded(catalogue, users[:1], shared).song)

    def extra_state(self) -> dict[str, Any]:
        """Return how many clients answered in each round: the privacy account goes on from there."""
        return {"answered": self.answered}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """See ``extra_state``."""
        self.answered = list(state["answered"])

    # Flower

    def _start_flower(self, clients: list[ClientData]) -> FlowerProcess:
        given = self.config.model_dump(mode="json", include=self.config.model_fields_set)
        model = self.model.config.model_dump(mode="json")
        spec = FederationSpec(model_config_of_all=model, training_config=given, num_clients=len(clients))
        users, _ = self._parameters()
        return FlowerProcess(spec, [(client.graph, users[client.users]) for client in clients], self.output_dir)

    def _end_flower(self) -> None:
        flower, self._flower = self._flower, None
        if flower is not None:
            flower.close()

    # Data and parameters on the CPU, where clients train

    def _clients(self, graph: HeteroData) -> list[ClientData]:
        known = self._clients_by_graph.get(graph)
        if known is None:
            num_users, own = int(graph["user"].num_nodes), copy.copy(graph).cpu()
            groups = groups_of_users(num_users, min(self.config.num_clients, num_users), self.config.seed)
            data = [ClientData(users, client_graph(own, users)) for users in groups]
            known = self._clients_by_graph.set(graph, data)
        return known

    def _parameters(self) -> tuple[Tensor, dict[str, Tensor]]:
        users, shared = split_parameters(self.model)
        return users.cpu(), {name: values.cpu() for name, values in shared.items()}

    def _encoded(self, graph: HeteroData, users: Tensor, shared: Parameters) -> Embeddings:
        config = self.model.config.model_dump() | {"num_users": len(users)}
        model = create_model(config, self.config.seed)
        load_parameters(model, users, shared)
        return model.eval().encode(graph)

    def _check_model(self) -> None:
        name = self.model.config.architecture
        if self.model.local is not None:
            raise InputError(
                f"The local channel of '{name}' counts the listens of all users, which no client may see and which "
                f"averaging cannot add up in secret; set local to false in model_config for the trainer 'federated'."
            )
        if not isinstance(self.model, TableModel):
            raise InputError(
                f"The trainer 'federated' has to tell users' vectors from all that is shared, and '{name}' is no "
                f"TableModel; choose gat with local = false, lightgcn or mf."
            )

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
from trainers.federated.client import graph_of, groups_of_users, load_parameters, split_parameters
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.flower_process import FlowerProcess
from trainers.federated.privacy import Parameters
from trainers.federated.shared_folder import Ask, Job
from trainers.loop.training_results import EpochRecord, TrainingResults

__all__ = ["FederatedConfig", "FederatedTrainer"]


class Part(NamedTuple):
    """One client's users (G,), ascending, and its graph, in which they are counted anew."""

    users: Tensor
    graph: HeteroData


class FederatedTrainer(AdvancedTrainer):
    """Trains where the listens are: each client trains on its own users, the server averages what they send.

    A client is a group of users. Its listens and its users' vectors stay with it; rows of songs and artists and all
    other parameters are sent, and averaged by Flower's FedAvg or FedProx. An epoch is ``rounds_per_epoch`` rounds;
    evaluation, early stopping, learning rate, checkpoints and resuming are those of ``AdvancedTrainer``.

    With ``clipping_norm`` each user trains alone, and what a user changes of the shared parameters is clipped; with
    ``noise_multiplier`` each client sends the sum with noise on every number, and the history tells ``epsilon``; see
    ``trainers.federated.privacy``.

    This is a simulation on one machine: to measure, it reads the user vectors and losses that a deployment would never
    see, and its noise comes from ``seed``, where a deployment needs a secret one.

    Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017;
    Ammad-ud-din et al., "Federated Collaborative Filtering for Privacy-Preserving Personalized Recommendation System",
    2019 (user vectors stay, song vectors are shared).

    Args: see ``BaseTrainer``; ``training_config`` takes the keys of ``FederatedConfig`` too.

    Raises:
        InputError: for a model with a local channel, or one whose user vectors cannot be told from the rest.
    """

    Config: ClassVar[type[TrainingConfig]] = FederatedConfig
    config: FederatedConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._check_model()
        self.answered: list[int] = []
        self._flower: FlowerProcess | None = None
        self._known_parts: GraphCache[list[Part]] = GraphCache()

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
        """The epoch's rounds: ``loss`` of the clients in their last round, ``clients`` that answered, ``epsilon``."""
        parts, rate = self._parts(graph), self.optimizer.param_groups[0]["lr"]
        flower = self._flower = self._flower or self._start_flower(parts)
        before = len(self.answered)
        users, shared = self._parameters()
        ask = Ask(lr=rate, rounds_before=before, answered_before=self.answered)
        answer, shared = flower.ask(ask, shared)
        self.answered = [*self.answered, *answer.answered]
        kept = [disk.kept() for disk in flower.disks]
        for part, own in zip(parts, kept, strict=True):
            users[part.users] = own.users
        load_parameters(self.model, users, shared)
        losses = [own.loss for own in kept if own.last_round > before]
        loss = {"loss": sum(losses) / len(losses)} if losses else {}
        return {**loss, "clients": sum(answer.answered) / len(answer.answered), **answer.privacy}

    @torch.no_grad()
    def embeddings(self, graph: HeteroData) -> Embeddings:
        """What each side can compute: a client its users' vectors from its own listens, the server those of songs.

        Songs are encoded from the shared parameters and the catalogue alone, since nobody has all listens.
        """
        parts, (users, shared) = self._parts(self._message_graph_of(graph)), self._parameters()
        vectors = torch.empty_like(users)
        for part in parts:
            vectors[part.users] = self._encoded(part.graph, users[part.users], shared).user
        return Embeddings(vectors, self._encoded(_catalogue(parts[0].graph), users[:1], shared).song)

    def extra_state(self) -> dict[str, Any]:
        """How many clients answered in each round, which the account goes on from."""
        return {"answered": self.answered}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """See ``extra_state``."""
        self.answered = list(state["answered"])

    # Flower

    def _start_flower(self, parts: list[Part]) -> FlowerProcess:
        given = self.config.model_dump(mode="json", include=self.config.model_fields_set)
        model = self.model.config.model_dump(mode="json")
        job = Job(model_config_of_all=model, training_config=given, num_clients=len(parts))
        users, _ = self._parameters()
        return FlowerProcess(job, [(part.graph, users[part.users]) for part in parts], self.output_dir)

    def _end_flower(self) -> None:
        flower, self._flower = self._flower, None
        if flower is not None:
            flower.close()

    # Parts of the graph and of the model, on the CPU, where clients are

    def _parts(self, graph: HeteroData) -> list[Part]:
        return self._known_parts.get(graph) or self._known_parts.set(graph, self._divide(copy.copy(graph).cpu()))

    def _divide(self, graph: HeteroData) -> list[Part]:
        num_users = int(graph["user"].num_nodes)
        groups = groups_of_users(num_users, min(self.config.num_clients, num_users), self.config.seed)
        return [Part(users, graph_of(graph, users)) for users in groups]

    def _parameters(self) -> tuple[Tensor, dict[str, Tensor]]:
        users, shared = split_parameters(self.model)
        return users.cpu(), {name: values.cpu() for name, values in shared.items()}

    def _encoded(self, part: HeteroData, users: Tensor, shared: Parameters) -> Embeddings:
        config = self.model.config.model_dump() | {"num_users": len(users)}
        model = create_model(config, self.config.seed)
        load_parameters(model, users, shared)
        return model.eval().encode(part)

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


def _catalogue(part: HeteroData) -> HeteroData:
    """A graph of one user who has heard nothing."""
    return graph_of(part, torch.tensor([int(part["user"].num_nodes)]))

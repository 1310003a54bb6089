"""One client of a federated training: its users' listens and vectors, and what it makes of the shared parameters.

A client is a group of users and the machine that they trust. Nothing here knows Flower: it hands over what ``train``
is given and takes away what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor
from torch.optim import SGD, Optimizer
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, set_by, set_listens
from models.base import RecommenderModel
from models.mf import MF
from trainers.base import BaseTrainer
from trainers.config import TrainingConfig
from trainers.federated.federated_config import FederatedConfig
from trainers.federated.privacy import Parameters, clipped, noisy
from trainers.loop.random_streams import own_global_stream, stream, stream_seed
from trainers.objective import PairObjective

TABLE, CATALOGUE = "table", "songs_and_artists"
"""The model's parameter with a row a node, and what its rows of songs and artists are called on their own."""


def split_parameters(model: RecommenderModel) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows of the model's users (U, D), and all other parameters by name: what is private and what is shared."""
    shared = {name: values.clone() for name, values in model.state_dict().items()}
    table = shared.pop(TABLE)
    users = model.config.num_users
    return table[:users].clone(), {CATALOGUE: table[users:].clone(), **shared}


def load_parameters(model: RecommenderModel, users: Tensor, shared: Parameters) -> None:
    """Put users' rows and shared parameters into a model of as many users."""
    others = {name: values for name, values in shared.items() if name != CATALOGUE}
    model.load_state_dict({TABLE: torch.cat([users, shared[CATALOGUE]]), **others})


def groups_of_users(num_users: int, num_clients: int, seed: int) -> list[Tensor]:
    """Which users, ascending, belong to each client: drawn once, group sizes differ by one at most."""
    order = torch.randperm(num_users, generator=stream(seed, "clients"))
    return [group.sort().values for group in order.tensor_split(num_clients)]


def graph_of(graph: HeteroData, users: Tensor) -> HeteroData:
    """What some users, ascending, have on their own: their listens, users counted anew, and the catalogue."""
    place = torch.searchsorted(users, graph[LISTENS].edge_index[0]).clamp(max=len(users) - 1)
    own = users[place] == graph[LISTENS].edge_index[0]
    part = HeteroData()
    for kind, count in (("user", len(users)), ("song", graph["song"].num_nodes), ("artist", graph["artist"].num_nodes)):
        part[kind].num_nodes = count
    pairs = torch.stack([place[own], graph[LISTENS].edge_index[1, own]])
    set_listens(part, pairs, {"weight": graph[LISTENS].weight[own]}, 0.0)
    set_by(part, graph[BY].edge_index)
    return part


class UndividedObjective(PairObjective):
    """For models that pass no messages: a step that leaves out all edges of one user leaves out nothing."""

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """See ``PairObjective.loss``."""
        return self.step_loss(model, graph, torch.stack([users, songs]), generator)


class LocalTrainer(BaseTrainer):
    """The steps of the one loop on the listens of one client, or of one user.

    It starts anew in each round, from parameters that it is given; it evaluates nothing and keeps no checkpoint.

    Source of the proximal term: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020.

    Args: see ``BaseTrainer``; ``training_config`` is that of the federated training.
    """

    Config: ClassVar[type[TrainingConfig]] = FederatedConfig
    config: FederatedConfig

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if isinstance(self.model, MF):
            self.objective = UndividedObjective(self.config)

    def create_optimizer(self) -> Optimizer:
        """What ``local_optimizer`` names."""
        if self.config.local_optimizer == "sgd":
            return SGD(self.model.parameters(), lr=self.config.lr)
        return super().create_optimizer()

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """One pass over the pairs: ``{"loss": ...}``."""
        return self.train_on_pairs(graph, graph[LISTENS].edge_index)

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Nothing: a client holds nothing out."""
        return {}

    def step(self, loss: Tensor) -> float:
        """See ``BaseTrainer.step``; with the proximal term, where there is one."""
        return super().step(loss + self._distance() if self.config.proximal_mu else loss)

    def start_from(self, users: Tensor, shared: Parameters, lr: float) -> None:
        """Take parameters, and a new optimizer."""
        load_parameters(self.model, users, shared)
        self._anchor = shared
        self.optimizer = self.create_optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _distance(self) -> Tensor:
        own: dict[str, Tensor] = dict(self.model.named_parameters())
        own[CATALOGUE] = own.pop(TABLE)[self.model.config.num_users :]
        gaps = [(own[name] - values).square().sum() for name, values in self._anchor.items() if name in own]
        return self.config.proximal_mu / 2 * torch.stack(gaps).sum()


class Sent(NamedTuple):
    """All that leaves a client: new shared parameters, and their weight in the average."""

    shared: dict[str, Tensor]
    weight: int


class Client:
    """A group of users, for as long as a training takes.

    Args:
        number: which client it is, for its random streams.
        model_config: of the whole model; the number of users is replaced.
        config: of the federated training.
        graph: the users' own listens and the catalogue, see ``graph_of``.

    Attributes:
        users: (G, D) vectors of its users, which stay here.
        loss: mean loss of a pair in the last round, which stays here too.
    """

    def __init__(self, number: int, model_config: Mapping[str, Any], config: FederatedConfig, graph: HeteroData):
        self.number, self.config, self.graph = number, config, graph
        self.size = int(graph["user"].num_nodes)
        self.num_pairs = graph[LISTENS].edge_index.shape[1]
        self.users = torch.empty(0)
        self.loss = 0.0
        unit = self.size if config.clipping_norm is None else 1
        training = config.model_dump() | {"device": "cpu"}
        given = {key: training[key] for key in config.model_fields_set | {"device"}}
        self.trainer = LocalTrainer({**model_config, "num_users": unit}, given)
        self._graphs: list[HeteroData] = []
        self._stream = ""

    def train(self, shared: Parameters, lr: float, round_number: int) -> Sent:
        """One round, from the shared parameters; ``users`` and ``loss`` are new afterwards.

        Raises:
            InputError: when the loss stops being a number.
        """
        self.trainer.current_epoch, self.trainer.current_batch = round_number, 0
        self._stream = f"client {self.number} round {round_number}"
        if self.config.clipping_norm is None:
            return self._train_together(shared, lr)
        return self._train_apart(shared, lr, self.config.clipping_norm)

    def _train_together(self, shared: Parameters, lr: float) -> Sent:
        if not self.num_pairs:
            return Sent(dict(shared), 1)
        self.users, shared, self.loss = self._trained(self.graph, self.users, shared, lr, "all")
        return Sent(shared, self.num_pairs)

    def _train_apart(self, shared: Parameters, lr: float, norm: float) -> Sent:
        """Each drawn user alone: what one user's listens change of the sum is at most ``norm`` long."""
        total = {name: torch.zeros_like(values) for name, values in shared.items()}
        losses = []
        for user in self._drawn_users():
            own, trained, loss = self._trained(self._graph_of(user), self.users[[user]], shared, lr, f"user {user}")
            self.users[user] = own[0]
            losses.append(loss)
            for name, values in clipped(_less(trained, shared), norm).items():
                total[name] += values
        self.loss = sum(losses) / max(1, len(losses))
        if self.config.noise_multiplier:
            total = noisy(total, self.config.noise_multiplier * norm, self._random("noise"))
        expected = self.config.user_rate * self.size
        return Sent({name: values + total[name] / expected for name, values in shared.items()}, self.size)

    def _drawn_users(self) -> list[int]:
        """Users who take part in the round and have something to learn from."""
        drawn = torch.rand(self.size, generator=self._random("coins")) < self.config.user_rate
        heard = self.graph[LISTENS].edge_index[0].bincount(minlength=self.size) > 0
        drawn_users: list[int] = (drawn & heard).nonzero().flatten().tolist()
        return drawn_users

    def _trained(
        self, graph: HeteroData, users: Tensor, shared: Parameters, lr: float, whose: str
    ) -> tuple[Tensor, dict[str, Tensor], float]:
        """Users and shared parameters after the passes over a graph, and the mean loss.

        Random streams are of the user: were they shared, one user's listens would change the draws of the next.
        """
        self.trainer.start_from(users, shared, lr)
        self.trainer.sampling = self._random(whose)
        seed = stream_seed(self.config.seed, f"{self._stream} {whose} model")
        with own_global_stream(seed, torch.device("cpu")):
            losses = [self.trainer.train_epoch(graph)["loss"] for _ in range(self.config.local_epochs)]
        return *split_parameters(self.trainer.model), sum(losses) / len(losses)

    def _random(self, name: str) -> Generator:
        return stream(self.config.seed, f"{self._stream} {name}")

    def _graph_of(self, user: int) -> HeteroData:
        if not self._graphs:
            self._graphs = [graph_of(self.graph, torch.tensor([number])) for number in range(self.size)]
        return self._graphs[user]


def _less(ours: Parameters, theirs: Parameters) -> dict[str, Tensor]:
    return {name: values - theirs[name] for name, values in ours.items()}

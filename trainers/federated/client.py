"""One client of a federated training: its users' listens and vectors, and its update of the shared parameters.

A client is a group of users and the machine that they trust. Nothing here knows Flower, which passes on the arguments
of ``Client.train`` and its result.
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
"""The model's parameter with a row for each node, and the name of its rows of songs and artists alone."""


def split_parameters(model: RecommenderModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the rows of the model's users (U, D), which are private, and all other parameters, which are shared."""
    shared = {name: values.clone() for name, values in model.state_dict().items()}
    table = shared.pop(TABLE)
    users = model.config.num_users
    return table[:users].clone(), {CATALOGUE: table[users:].clone(), **shared}


def load_parameters(model: RecommenderModel, users: Tensor, shared: Parameters) -> None:
    """Put users' rows and shared parameters into a model of as many users."""
    others = {name: values for name, values in shared.items() if name != CATALOGUE}
    model.load_state_dict({TABLE: torch.cat([users, shared[CATALOGUE]]), **others})


def groups_of_users(num_users: int, num_clients: int, seed: int) -> list[Tensor]:
    """Draw the users of each client, ascending; group sizes differ by one at most."""
    order = torch.randperm(num_users, generator=stream(seed, "clients"))
    return [group.sort().values for group in order.tensor_split(num_clients)]


def client_graph(graph: HeteroData, users: Tensor) -> HeteroData:
    """Return what some users, ascending, have on their own: their listens, with users renumbered, and the catalogue."""
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
    """Takes a batch in one step, for models that pass no messages: no edge has to be left for the others."""

    def loss(
        self, model: RecommenderModel, graph: HeteroData, users: Tensor, songs: Tensor, generator: Generator
    ) -> Tensor:
        """See ``PairObjective.loss``."""
        return self.step_loss(model, graph, torch.stack([users, songs]), generator)


class LocalTrainer(BaseTrainer):
    """Takes the steps of an epoch on the listens of one client, or of one user.

    It starts again in each round, from the parameters of that round; it evaluates nothing and keeps no checkpoint.

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
        """Return the optimizer that ``local_optimizer`` names."""
        if self.config.local_optimizer == "sgd":
            return SGD(self.model.parameters(), lr=self.config.lr)
        return super().create_optimizer()

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        """Make one pass over the pairs: ``{"loss": ...}``."""
        return self.train_on_pairs(graph, graph[LISTENS].edge_index)

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Return no metrics: a client holds nothing out."""
        return {}

    def step(self, loss: Tensor) -> float:
        """See ``BaseTrainer.step``; adds the proximal term if there is one."""
        return super().step(loss + self._distance() if self.config.proximal_mu else loss)

    def start_from(self, users: Tensor, shared: Parameters, lr: float) -> None:
        """Load parameters, and make a new optimizer."""
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


class ClientUpdate(NamedTuple):
    """All that leaves a client in a round: new shared parameters, and their weight in the average."""

    shared: dict[str, Tensor]
    weight: int


class Client:
    """A group of users in a training.

    Args:
        number: which client it is, for its random streams.
        model_config: of the whole model; the number of users is replaced.
        config: of the federated training.
        graph: the users' own listens and the catalogue, see ``client_graph``.

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

    def train(self, shared: Parameters, lr: float, round_number: int) -> ClientUpdate:
        """Train one round from the shared parameters; ``users`` and ``loss`` are new afterwards.

        Raises:
            InputError: when the loss stops being a number.
        """
        self.trainer.current_epoch, self.trainer.current_batch = round_number, 0
        self._stream = f"client {self.number} round {round_number}"
        if self.config.clipping_norm is not None:
            return self._train_user_by_user(shared, lr, self.config.clipping_norm)
        if not self.num_pairs:
            return ClientUpdate(dict(shared), 1)
        self.users, shared, self.loss = self._trained(self.graph, self.users, shared, lr, "all")
        return ClientUpdate(shared, self.num_pairs)

    def _train_user_by_user(self, shared: Parameters, lr: float, norm: float) -> ClientUpdate:
        """Train each drawn user alone, so that one user's listens change the sum by at most ``norm``."""
        total = {name: torch.zeros_like(values) for name, values in shared.items()}
        losses = []
        for user in self._drawn_users():
            own, trained, loss = self._trained(self._graph_of(user), self.users[[user]], shared, lr, f"user {user}")
            self.users[user] = own[0]
            losses.append(loss)
            update = {name: values - shared[name] for name, values in trained.items()}
            for name, values in clipped(update, norm).items():
                total[name] += values
        self.loss = sum(losses) / max(1, len(losses))
        if self.config.noise_multiplier:
            total = noisy(total, self.config.noise_multiplier * norm, self._random("noise"))
        expected = self.config.user_rate * self.size
        return ClientUpdate({name: values + total[name] / expected for name, values in shared.items()}, self.size)

    def _drawn_users(self) -> list[int]:
        """Draw the users who take part in the round, and leave out those without listens."""
        drawn = torch.rand(self.size, generator=self._random("coins")) < self.config.user_rate
        has_listens = self.graph[LISTENS].edge_index[0].bincount(minlength=self.size) > 0
        users: list[int] = (drawn & has_listens).nonzero().flatten().tolist()
        return users

    def _trained(
        self, graph: HeteroData, users: Tensor, shared: Parameters, lr: float, whose: str
    ) -> tuple[Tensor, dict[str, Tensor], float]:
        """Return users and shared parameters after the passes over a graph, and the mean loss.

        Each user has random streams of its own: if they were shared, one user's listens would change the next user's.
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
            self._graphs = [client_graph(self.graph, torch.tensor([number])) for number in range(self.size)]
        return self._graphs[user]

"""The folder in which a simulated federation lies: the clients' own files, and what training and Flower exchange.

    spec.json                      configs and the number of clients
    catalogue.safetensors          which songs are by which artists, known to all
    clients/3/listens.safetensors  a client's listens, written once
    clients/3/state.safetensors    its users' vectors, the loss of its last round, and that round's number
    request.safetensors            shared parameters that an epoch starts from
    response.json, .safetensors    what the epoch came to, and shared parameters after it
    failed.txt                     why Flower cannot go on, in one sentence

In a deployment each client's files are on another machine. Here the training reads the user vectors and losses from
them to evaluate, which is what makes this a simulation; no message between clients and server carries them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_geometric.data import HeteroData

from data.config import JsonRecord
from data.graph import BY, LISTENS, set_by, set_listens
from trainers.federated.federated_config import FederatedConfig


class FederationSpec(JsonRecord):
    """The config of a federation, which Flower's process reads once."""

    model_config_of_all: dict[str, Any]
    """The model's config, node counts included."""
    training_config: dict[str, Any]
    """The keys of ``federated`` that were given."""
    num_clients: int
    """Clients, at most as many as users."""

    def config(self) -> FederatedConfig:
        """Return the validated keys."""
        return FederatedConfig.parse(self.training_config, "training_config")


class EpochRequest(JsonRecord):
    """An epoch to run; its parameters are in ``request.safetensors``."""

    lr: float
    """Learning rate at the clients."""
    rounds_before: int
    """Rounds that were run before this epoch."""
    answered_before: list[int]
    """Clients that answered in each of those rounds: the privacy account goes on from there."""


class EpochResponse(JsonRecord):
    """The result of an epoch; its parameters are in ``response.safetensors``."""

    answered: list[int]
    """Clients that answered in each round."""
    privacy: dict[str, float]
    """See ``trainers.federated.privacy.epsilons``."""


class ClientState(NamedTuple):
    """The state of a client between rounds: user vectors (G, D), mean loss, and number of its last round; 0 is none."""

    users: Tensor
    loss: float
    last_round: int


class ClientFolder:
    """The files of one client, which stay there and are read by others only to measure."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.home = number, folder / "clients" / str(number)
        self.catalogue = folder / "catalogue.safetensors"

    def write_listens(self, own: HeteroData) -> None:
        """Write the client's listens, once."""
        self.home.mkdir(parents=True)
        counts = torch.tensor([own[kind].num_nodes for kind in ("user", "song", "artist")])
        listens = {"pairs": own[LISTENS].edge_index.contiguous(), "weight": own[LISTENS].weight, "counts": counts}
        save_file(listens, self.home / "listens.safetensors")

    def graph(self) -> HeteroData:
        """Return the client's graph: its users' listens and the catalogue."""
        own, graph = load_file(self.home / "listens.safetensors"), HeteroData()
        for kind, count in zip(("user", "song", "artist"), own["counts"].tolist(), strict=True):
            graph[kind].num_nodes = count
        set_listens(graph, own["pairs"], {"weight": own["weight"]}, 0.0)
        set_by(graph, load_file(self.catalogue)["by"])
        return graph

    def write_state(self, state: ClientState) -> None:
        """Replace the client's state."""
        last = {"loss": torch.tensor(state.loss), "last_round": torch.tensor(state.last_round)}
        _replace({"users": state.users.contiguous(), **last}, self.home / "state.safetensors")

    def read_state(self) -> ClientState:
        """Return the state that was written last."""
        found = load_file(self.home / "state.safetensors")
        return ClientState(found["users"], float(found["loss"]), int(found["last_round"]))


class SharedFolder:
    """The folder as both processes see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec, self.failed, self.log = folder / "spec.json", folder / "failed.txt", folder / "log.txt"
        self._response = folder / "response.json"

    @classmethod
    def create(cls, folder: Path, spec: FederationSpec, clients: Sequence[tuple[HeteroData, Tensor]]) -> Self:
        """Fill an empty folder: the spec, and each client's files with its graph and its users' vectors (G, D)."""
        made = cls(folder)
        spec.write(made.spec)
        save_file({"by": clients[0][0][BY].edge_index.contiguous()}, folder / "catalogue.safetensors")
        for client, (graph, users) in zip(made.clients(len(clients)), clients, strict=True):
            client.write_listens(graph)
            client.write_state(ClientState(users, 0.0, 0))
        return made

    def clients(self, count: int) -> list[ClientFolder]:
        """Return the clients' folders."""
        return [ClientFolder(self.folder, number) for number in range(count)]

    def write_request(self, shared: Mapping[str, Tensor]) -> None:
        """Write the shared parameters that an epoch starts from; an earlier response is deleted."""
        self._response.unlink(missing_ok=True)
        _replace(shared, self.folder / "request.safetensors")

    def read_request(self) -> dict[str, Tensor]:
        """Return the shared parameters that the epoch starts from."""
        return load_file(self.folder / "request.safetensors")

    def write_response(self, response: EpochResponse, shared: Mapping[str, Tensor]) -> None:
        """Write the result of an epoch. ``response.json`` comes last, in one move, since the training waits for it."""
        _replace(shared, self.folder / "response.safetensors")
        temporary = self._response.with_suffix(".tmp")
        response.write(temporary)
        temporary.replace(self._response)

    def read_response(self) -> tuple[EpochResponse, dict[str, Tensor]] | None:
        """Return the result of the epoch, or None while there is none."""
        if not self._response.exists():
            return None
        return EpochResponse.read(self._response), load_file(self.folder / "response.safetensors")


def _replace(tensors: Mapping[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    save_file({name: values.detach().cpu().contiguous() for name, values in tensors.items()}, temporary)
    temporary.replace(path)

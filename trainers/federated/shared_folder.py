"""The folder in which a simulated federation lies: the clients' own disks, and what training and Flower say.

    job.json                     configs and the number of clients
    catalogue.safetensors        which songs are by whom, known to all
    clients/3/own.safetensors    a client's disk: its listens (written once), and below
    clients/3/users.safetensors  its users' vectors, the loss of its last round, and that round's number
    asked.safetensors            shared parameters that an epoch starts from
    answer.json, .safetensors    what the epoch came to, and shared parameters after it
    failed.txt                   why Flower cannot go on, in one sentence

In a deployment each disk is in another house. Here the training reads the user vectors and losses from the disks to
evaluate, which is what makes this a simulation; no message between clients and server carries them.
"""

from __future__ import annotations

import json
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


class Job(JsonRecord):
    """What Flower's process is told once."""

    model_config_of_all: dict[str, Any]
    """The model's config, node counts included."""
    training_config: dict[str, Any]
    """The keys of ``federated`` that were given."""
    num_clients: int
    """Clients, at most as many as users."""

    def config(self) -> FederatedConfig:
        """The validated keys."""
        return FederatedConfig.parse(self.training_config, "training_config")


class Ask(JsonRecord):
    """An epoch that the training asks for; the parameters are in ``asked.safetensors``."""

    lr: float
    """Learning rate at the clients."""
    rounds_before: int
    """Rounds that were run before this epoch."""
    answered_before: list[int]
    """How many clients answered in each of them: the account goes on from there."""


class Answer(JsonRecord):
    """What an epoch came to; the parameters are in ``answer.safetensors``."""

    answered: list[int]
    """How many clients answered in each round."""
    privacy: dict[str, float]
    """See ``trainers.federated.privacy.epsilons``."""


class Kept(NamedTuple):
    """What a client keeps of its last round: user vectors (G, D), mean loss, and which round it was; 0 is none."""

    users: Tensor
    loss: float
    last_round: int


class ClientDisk:
    """What lies at one client, and never leaves it but for measuring."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.home = number, folder / "clients" / str(number)
        self.catalogue = folder / "catalogue.safetensors"

    def write_listens(self, own: HeteroData) -> None:
        """Write the client's listens, once."""
        self.home.mkdir(parents=True)
        counts = torch.tensor([own[kind].num_nodes for kind in ("user", "song", "artist")])
        listens = {"pairs": own[LISTENS].edge_index.contiguous(), "weight": own[LISTENS].weight, "counts": counts}
        save_file(listens, self.home / "own.safetensors")

    def graph(self) -> HeteroData:
        """The client's graph: its users' listens and the catalogue."""
        own, graph = load_file(self.home / "own.safetensors"), HeteroData()
        for kind, count in zip(("user", "song", "artist"), own["counts"].tolist(), strict=True):
            graph[kind].num_nodes = count
        set_listens(graph, own["pairs"], {"weight": own["weight"]}, 0.0)
        set_by(graph, load_file(self.catalogue)["by"])
        return graph

    def keep(self, kept: Kept) -> None:
        """Replace what is kept of the last round."""
        last = {"loss": torch.tensor(kept.loss), "last_round": torch.tensor(kept.last_round)}
        _replace({"users": kept.users.contiguous(), **last}, self.home / "users.safetensors")

    def kept(self) -> Kept:
        """What ``keep`` wrote last."""
        found = load_file(self.home / "users.safetensors")
        return Kept(found["users"], float(found["loss"]), int(found["last_round"]))


class Exchange:
    """The folder as both processes see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job, self.failed, self.log = folder / "job.json", folder / "failed.txt", folder / "log.txt"
        self._answer = folder / "answer.json"

    @classmethod
    def start(cls, folder: Path, job: Job, clients: Sequence[tuple[HeteroData, Tensor]]) -> Self:
        """Lay out an empty folder: the job, and each client's disk with its graph and its users' vectors (G, D)."""
        made = cls(folder)
        job.write(made.job)
        save_file({"by": clients[0][0][BY].edge_index.contiguous()}, folder / "catalogue.safetensors")
        for disk, (graph, users) in zip(made.disks(len(clients)), clients, strict=True):
            disk.write_listens(graph)
            disk.keep(Kept(users, 0.0, 0))
        return made

    def disks(self, count: int) -> list[ClientDisk]:
        """The clients' disks."""
        return [ClientDisk(self.folder, number) for number in range(count)]

    def write_asked(self, shared: Mapping[str, Tensor]) -> None:
        """Shared parameters that an epoch starts from; an earlier answer is deleted."""
        self._answer.unlink(missing_ok=True)
        _replace(shared, self.folder / "asked.safetensors")

    def asked(self) -> dict[str, Tensor]:
        """What ``write_asked`` wrote."""
        return load_file(self.folder / "asked.safetensors")

    def write_answer(self, answer: Answer, shared: Mapping[str, Tensor]) -> None:
        """The end of an epoch; the training looks for ``answer.json``, which is written last, in one move."""
        _replace(shared, self.folder / "answer.safetensors")
        temporary = self._answer.with_suffix(".tmp")
        answer.write(temporary)
        temporary.replace(self._answer)

    def answer(self) -> tuple[Answer, dict[str, Tensor]] | None:
        """What ``write_answer`` wrote; None while it is not there."""
        if not self._answer.exists():
            return None
        return Answer.read(self._answer), load_file(self.folder / "answer.safetensors")


def as_line(ask: Ask) -> str:
    """One line of JSON."""
    return json.dumps(ask.model_dump()) + "\n"


def _replace(tensors: Mapping[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    save_file({name: values.detach().cpu().contiguous() for name, values in tensors.items()}, temporary)
    temporary.replace(path)

"""Training on a GPU: on a pretended one, which refuses what a real one refuses and computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from data.graph import LISTENS
from evaluation.ranking import rank
from evaluation.vector_scores import VectorScores
from models.item_paths.listened_songs import listened_songs
from models.item_paths.local_channel import LocalChannel
from tests.trainers.devices.pretend_gpu import PretendedTensor, pretended_gpu
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.loop.model_files import load_score
from trainers.names import TRAINERS

OURS = sorted(set(TRAINERS) - {"federated"})  # its clients train on the CPU, wherever they are
CASES = [
    {"architecture": "gat"},
    {"architecture": "gat", "loss": "bpr"},
    {"architecture": "gat", "num_neighbors": (3, 2)},
    {"architecture": "gat", "num_neighbors": (3, 2), "loss": "bpr"},
    {"architecture": "gat", "local": False},
    {"architecture": "lightgcn"},
    {"architecture": "lightgcn", "loss": "bpr", "num_neighbors": (3, 2)},
    {"architecture": "mf"},
    {"architecture": "mf", "loss": "bpr", "l2": 0.01},
]
"""Beside these, ``dropout`` is 0 for the two that let torch draw it: a GPU draws other numbers."""


def named(case: dict[str, Any]) -> str:
    return "-".join(f"{value}" for value in case.values())


@pytest.fixture
def gpu():
    with pretended_gpu() as device:
        yield device


@pytest.fixture
def make(model_config, training_config, tmp_path) -> Callable[..., BaseTrainer]:
    """A trainer of its own folder for a device."""

    def make(trainer: str, device: str, case: dict[str, Any], **training: Any) -> BaseTrainer:
        of_model = {key: value for key, value in case.items() if key in ("architecture", "local", "dropout")}
        of_training = {key: value for key, value in case.items() if key not in of_model}
        if case["architecture"] != "gat":
            of_model["dropout"] = case.get("dropout", 0.0)
        known = {key: value for key, value in model_config.items() if key != "heads" or case["architecture"] == "gat"}
        options = {**training_config, **of_training, **training, "device": device}
        return create_trainer(trainer, {**known, **of_model}, options, tmp_path / device)

    return make


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "advanced" else pytest.mark.slow) for name in OURS]
)
def test_a_gpu_trains_and_saves_what_a_cpu_does(name, case, make, tiny_graph, tmp_path):
    here = make(name, "cpu", case)
    expected = here.train(tiny_graph, 2)
    with pretended_gpu():
        there = make(name, "cuda", case)
        found = there.train(tiny_graph, 2)
        there.save_model(tmp_path / "there")
    assert {value.device.type for value in there.model.parameters()} == {"cuda"}
    for ours, theirs in zip(expected["history"], found["history"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    assert found["test"] == pytest.approx(expected["test"], rel=1e-4)
    here.save_model(tmp_path / "here")
    ours, theirs = (load_score(tmp_path / place)(torch.arange(40)) for place in ("here", "there"))
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", [{"architecture": "gat"}, {"architecture": "mf", "dropout": 0.5}], ids=named)
def test_a_gpu_resumes_with_the_same_weights(case, make, tiny_graph, gpu):
    def die(records):
        if len(records) == 2:  # the checkpoint is of epoch 1
            raise KeyboardInterrupt

    whole = make("simple", "cuda", case, resume=False)
    whole.train(tiny_graph, 3)
    cut = make("simple", "cuda", case, resume=False)
    cut.epoch_callback = die
    with pytest.raises(KeyboardInterrupt):
        cut.train(tiny_graph, 3)
    resumed = make("simple", "cuda", case)
    heard = []
    resumed.epoch_callback = lambda records: heard.append(len(records))
    resumed.train(tiny_graph, 3)
    assert heard == [2, 3]
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert resumed.history == whole.history
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_on_the_gpu_neither_hears_nor_moves_the_callers_random_numbers(make, tiny_graph, gpu):
    found = []
    for seed in (1, 2):
        torch.cuda.manual_seed(seed)
        before = torch.cuda.get_rng_state()
        trainer = make("simple", "cuda", {"architecture": "mf", "dropout": 0.5}, resume=False)
        found.append(trainer.train(tiny_graph, 1)["history"])
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("graph", ["tiny_training_graph", "tiny_graph"])
def test_a_graph_on_the_gpu_trains_as_well(name, graph, make, gpu, request):
    case, here = {"architecture": "gat"}, request.getfixturevalue(graph)
    there = here.clone().to(gpu)
    expected = make(name, "cpu", case).train(here, 1)
    found = make(name, "cuda", case).train(there, 1)
    assert found["history"][0] == pytest.approx(expected["history"][0], rel=1e-4)
    assert there[LISTENS].edge_index.device == gpu


def test_a_refit_runs_on_the_gpu(make, tiny_graph, gpu):
    case = {"architecture": "gat"}
    records = make("advanced", "cuda", case).train(tiny_graph, 2)["history"]
    assert make("advanced", "cuda", case).refit(tiny_graph, records)["epochs_run"] == 2


def test_a_channel_on_the_gpu_scores_what_it_scores_on_the_cpu(tiny_graph, gpu):
    known, users = listened_songs(tiny_graph), torch.arange(4)
    here, there = LocalChannel(), LocalChannel().to(gpu)
    songs, similarity = torch.arange(30), torch.zeros(4, 30)
    ours, theirs = (channel.scores(known, users, songs, similarity) for channel in (here, there))
    ours.sum().backward()
    theirs.sum().backward()
    assert torch.equal(ours, theirs)
    for own, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad.cpu())
    near = similarity.numpy()
    assert (here.scorer(known)(users.numpy(), near) == there.scorer(known)(users.numpy(), near)).all()


def test_vectors_on_the_gpu_rank_as_on_the_cpu(gpu):
    user, song = (torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows)) for rows in (20, 50))
    hidden = torch.stack([torch.arange(20), torch.arange(20)])
    here = rank(VectorScores(user, song), torch.arange(20), hidden, 10)
    for score, users, known in (
        (VectorScores(user.to(gpu), song.to(gpu)), torch.arange(20), hidden),
        (VectorScores(user, song.to(gpu)), torch.arange(20, device=gpu), hidden.to(gpu)),
        (VectorScores(user.to(gpu), song), torch.arange(20, device=gpu), hidden),
        (lambda rows: (user @ song.T).to(gpu)[rows], torch.arange(20), hidden),
    ):
        found = rank(score, users, known, 10)
        assert torch.equal(found.items, here.items)


def test_vectors_on_the_gpu_and_a_channel_rank_as_on_the_cpu(tiny_graph, gpu):
    user, song = (torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows)) for rows in (40, 30))
    local = LocalChannel().to(gpu).scorer(listened_songs(tiny_graph))
    here, there = VectorScores(user, song, local), VectorScores(user.to(gpu), song.to(gpu), local)
    ours, theirs = (rank(score, torch.arange(40), None, 10) for score in (here, there))
    assert torch.equal(ours.items, theirs.items)
    assert torch.equal(ours.scores, theirs.scores)


class TestThePretence:
    """What a real GPU refuses; without this the tests above would prove nothing."""

    @pytest.mark.parametrize(
        "meeting",
        [
            lambda there, here: there + here,
            lambda there, here: here + there,
            lambda there, here: there @ here.T,
            lambda there, here: torch.cat([there, here]),
            lambda there, here: there.index_select(0, here[0].long()),
            lambda there, here: torch.searchsorted(there, here),
            lambda there, here: here[there[0].long()],
            lambda there, here: here.add_(there.sum()),
            lambda there, here: torch.where(there > 0, there, here),
            lambda there, here: there.index_put_((torch.tensor([0]),), here[:1]),
            lambda there, here: torch.rand(2, device=there.device, generator=torch.Generator()),
            lambda there, here: there.bernoulli_(generator=torch.Generator()),
        ],
    )
    def test_refuses_what_meets_from_two_devices(self, meeting, gpu):
        with pytest.raises(RuntimeError, match="Expected"):
            meeting(torch.ones(2, 2, device=gpu), torch.ones(2, 2))

    def test_refuses_numpy(self, gpu):
        for of in (lambda there: there.numpy(), lambda there: there.detach().numpy(), np.asarray):
            with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
                of(torch.ones(2, device=gpu))

    def test_takes_what_cuda_takes(self, gpu):
        there, here = torch.arange(4.0, device=gpu), torch.arange(2)
        assert isinstance(there[here], PretendedTensor)
        assert (there[here] * torch.tensor(2.0)).tolist() == [0, 2]
        there[here] = -1.0
        there[2:] = torch.tensor([5.0, 6.0])
        assert there.cpu().tolist() == [-1, -1, 5, 6]
        assert type(there.cpu()) is torch.Tensor
        assert torch.zeros_like(there).device == there.to(torch.float64).device == gpu

    def test_gradients_cross(self, gpu):
        there = torch.ones(2, device=gpu, requires_grad=True)
        (there.cpu() * torch.tensor([1.0, 2.0])).sum().backward()
        assert isinstance(there.grad, PretendedTensor)
        assert there.grad.tolist() == [1, 2]
        here = torch.ones(2, requires_grad=True)
        here.to(gpu).sum().backward()
        assert type(here.grad) is torch.Tensor

    def test_it_ends(self):
        with pretended_gpu():
            assert torch.cuda.is_available()
        assert not torch.cuda.is_available()

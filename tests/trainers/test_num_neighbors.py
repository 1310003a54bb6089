"""Training on sampled neighbourhoods: the same as on the full graph where nothing is left to sample, and close else."""

from __future__ import annotations

import pytest
import torch

from data.errors import InputError
from trainers.factory import create_trainer, trainer_class
from trainers.names import TRAINERS

ARCHITECTURES = {
    "gat": {"architecture": "gat"},
    "gat, vectors alone": {"architecture": "gat", "local": False},
    "lightgcn": {"architecture": "lightgcn"},
}


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture
def make(model_config, training_config, tmp_path):
    """``make(architecture, "name", num_neighbors=...)``: a trainer, in its own folder unless one is given."""
    made = []

    def build(architecture, trainer="advanced", folder=None, **training):
        made.append(trainer)
        config = {key: value for key, value in model_config.items() if key != "heads"} | architecture
        kind = trainer_class(trainer) if isinstance(trainer, str) else trainer
        folder = folder or tmp_path / str(len(made))
        return kind(model_config=config, training_config={**training_config, **training}, output_dir=folder)

    return build


def weights(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_with_more_neighbors_than_every_degree_training_is_that_on_the_full_graph(make, tiny_graph, architecture, loss):
    still = {**architecture, "dropout": 0.0}
    full, sampled = make(still, loss=loss), make(still, loss=loss, num_neighbors=[999, 999])
    ours, theirs = (trainer.train(tiny_graph, 2)["history"] for trainer in (sampled, full))
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], abs=1e-4)
    for key, value in weights(full).items():
        assert torch.allclose(sampled.model.state_dict()[key], value, atol=1e-3), key


@pytest.mark.parametrize("name", sorted(set(TRAINERS) - {"federated"}))  # samples in another process
def test_every_trainer_learns_from_samples_and_resumes(name, make, tiny_graph, tmp_path):
    class Cut(trainer_class(name)):
        dies = True

        def on_epoch_end(self, train_metrics, eval_metrics):
            if self.current_epoch == 2 and self.dies:
                raise KeyboardInterrupt
            return super().on_epoch_end(train_metrics, eval_metrics)

    with pytest.raises(KeyboardInterrupt):
        make({}, Cut, tmp_path / "cut", num_neighbors=[4, 3]).train(tiny_graph, 3)
    Cut.dies = False
    resumed, whole = (
        make({}, Cut, tmp_path / "cut", num_neighbors=[4, 3]),
        make({}, Cut, tmp_path / "whole", num_neighbors=[4, 3]),
    )
    resumed.train(tiny_graph, 3)
    whole.train(tiny_graph, 3)
    for key, value in weights(whole).items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


@pytest.mark.slow
def test_a_small_sample_is_about_as_good_as_the_full_graph(make, make_training_graph, architecture):
    graph = make_training_graph(num_users=150, num_songs=90, num_rows=3000)
    counts, found = {f"num_{kind}s": graph[kind].num_nodes for kind in ("user", "song", "artist")}, {}
    for num_neighbors in (None, [5, 3]):
        trainer = make(
            {**architecture, **counts}, num_neighbors=num_neighbors, batch_size=128, lr=0.02, num_eval_users=None
        )
        found[str(num_neighbors)] = trainer.train(graph, 8)["best_metric"]
    assert found["[5, 3]"] > 0.85 * found["None"]
    assert found["None"] > 0.1


def test_a_number_of_layers_that_does_not_fit_is_refused(make, tiny_graph):
    with pytest.raises(InputError) as refused:
        make({"architecture": "gat"}, num_neighbors=[5]).train(tiny_graph, 1)
    assert str(refused.value) == (
        "training_config.num_neighbors is [5], but the model has 2 layers; give one number a layer, the layer nearest "
        "to the result first, or change num_layers."
    )


def test_a_model_without_messages_refuses_num_neighbors(make, tiny_graph):
    with pytest.raises(InputError) as refused:
        make({"architecture": "mf"}, num_neighbors=[5, 5]).train(tiny_graph, 1)
    assert str(refused.value) == (
        "training_config.num_neighbors is [5, 5], but MF takes no sampled neighbourhoods; remove num_neighbors or "
        "choose an architecture that does, for example gat or lightgcn."
    )


@pytest.mark.parametrize("num_neighbors", [[], [5, 0], 5])
def test_what_is_no_list_of_counts_is_refused(num_neighbors, model_config):
    with pytest.raises(InputError, match="num_neighbors"):
        create_trainer("simple", model_config, {"num_neighbors": num_neighbors})


def test_the_earlier_name_of_the_key_still_works(make):
    assert make({}, fan_out=[4, 3]).config == make({}, num_neighbors=[4, 3]).config

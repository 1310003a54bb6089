"""Several seeds of one run: only the seed differs, and together they say what one alone cannot."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.evaluation import evaluate
from evaluation.record import write_per_user
from evaluation.seed_comparison import SeedComparison
from tasks.cache.ref import Ref
from tasks.run_config import load_run_config
from tasks.stages.seeds import DEFAULT_SEED, compare_seeds, runs_by_seed
from tests.tasks.plain_run import PlainRun
from trainers.config import TrainingConfig

pytestmark = pytest.mark.usefixtures("own_home")


def evaluation_of(seed: int, graph: HeteroData, folder: Path) -> Ref:
    """The evaluation of a model that guesses, by its seed."""
    folder.mkdir()
    scores = torch.rand(graph["user"].num_nodes, graph["song"].num_nodes, generator=torch.Generator().manual_seed(seed))
    found, beside = (
        evaluate(lambda users: scores[users], graph, "test", 5),
        evaluate(popularity(graph), graph, "test", 5),
    )
    found.record({"popularity": beside}).write(folder / "metrics.json")
    columns = {name: values.numpy() for name, values in found.per_user.items()}
    columns |= {f"popularity {name}": values.numpy() for name, values in beside.per_user.items()}
    write_per_user(folder / "per_user.parquet", pa.array([f"user {user}" for user in found.users.tolist()]), columns)
    return Ref(str(folder), f"evaluation of {seed}")


@pytest.fixture
def evaluations(tiny_training_graph: HeteroData, tmp_path: Path) -> list[Ref]:
    return [evaluation_of(seed, tiny_training_graph, tmp_path / str(seed)) for seed in range(3)]


def test_only_the_seed_of_the_training_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDS_TEST_NAME", "named")
    run = PlainRun(
        load_run_config(None, {"seeds": 3, "name": "${SEEDS_TEST_NAME}", "training": {"seed": 7, "lr": 0.1}})
    )
    first, *others = [one.config for one in runs_by_seed(run)]
    assert first is run.config
    assert [other.training for other in others] == [{"seed": 8, "lr": 0.1}, {"seed": 9, "lr": 0.1}]
    assert [{**other.model_dump(), "training": first.training} for other in others] == [first.model_dump()] * 2
    assert others[0]._variables == first._variables == ("SEEDS_TEST_NAME",)
    assert first.training == {"seed": 7, "lr": 0.1}


def test_each_seed_is_remembered_apart_from_the_others() -> None:
    runs = runs_by_seed(PlainRun(load_run_config(None, {"seeds": 3, "name": "songs"})))
    names = [run.config.remembered_as for run in runs]
    assert names == ["songs", "songs+seed-1", "songs+seed-2"]


def test_seeds_count_up_from_the_default() -> None:
    first, second = runs_by_seed(PlainRun(load_run_config(None, {"seeds": 2})))
    assert (first.config.training, second.config.training) == ({}, {"seed": 1})
    assert TrainingConfig().seed == DEFAULT_SEED


def test_one_seed_is_the_run_itself_with_nothing_to_compare(evaluations: list[Ref]) -> None:
    run = PlainRun(load_run_config(None, {}))
    assert runs_by_seed(run) == [run]
    assert compare_seeds(run, evaluations[:1]) is None


@pytest.mark.parametrize("seed", ["seven", 1.5, True])
def test_seeds_that_cannot_be_counted_are_explained(seed: object) -> None:
    run = PlainRun(load_run_config(None, {"seeds": 2, "training": {"seed": seed}}))
    with pytest.raises(InputError) as error:
        runs_by_seed(run)
    assert str(error.value) == f"training.seed is {seed!r}; give a whole number, from which --seeds counts up."


def test_the_stage_says_what_the_seeds_came_to(evaluations: list[Ref]) -> None:
    run = PlainRun(load_run_config(None, {"seeds": 3, "training": {"seed": 4, "eval_k": 5}}))
    ref = compare_seeds(run, evaluations)
    assert ref is not None
    record = SeedComparison.read(ref.value / "seeds.json")
    assert (record.seeds, record.metric) == ((4, 5, 6), "recall@5")
    watched = record.metrics["recall@5"]
    assert watched.low < watched.mean < watched.high
    assert watched.sd is not None
    assert len(set(watched.per_seed)) == 3
    assert set(record.differences) == {"popularity"}


def test_the_comparison_is_cached_by_its_evaluations(evaluations: list[Ref]) -> None:
    run = PlainRun(load_run_config(None, {"seeds": 3, "training": {"eval_k": 5}}))
    first, again, other = (compare_seeds(run, given) for given in (evaluations, evaluations, evaluations[::-1]))
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first.cached, again.cached, other.cached) == (False, True, False)

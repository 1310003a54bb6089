"""Baselines as stages: fitted once a split, left out where the log has nothing for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_geometric.data import HeteroData

from data.graph import LISTENS, load_graph, save_graph
from evaluation.baselines.choices import BASELINES, CHOICES, create_baseline
from evaluation.evaluation import evaluate
from evaluation.record import EvaluationRecord
from tasks.cache.ref import Ref
from tasks.run_config import load_run_config
from tasks.stages.baselines import fit_baselines
from tests.tasks.plain_run import PlainRun

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def fit(
    tmp_path: Path, tiny_training_graph: HeteroData, make_listens: Callable[..., Any], make_listens_folder: Any
) -> Callable[..., dict[str, Ref]]:
    """Fit the baselines of a run to a tiny split."""
    folders = {name: tmp_path / name for name in ("training_graph", "graph", "model")}
    make_listens_folder(folders["graph"], make_listens())
    for name in ("training_graph", "model"):
        folders[name].mkdir()
    save_graph(tiny_training_graph, folders["training_graph"] / "training_graph.pt")

    def run(everything: bool = False, **given: Any) -> dict[str, Ref]:
        (folders["model"] / "results.json").write_text(json.dumps({"trained_on_everything": everything}))
        refs = {name: Ref(str(path), name) for name, path in folders.items()}
        return fit_baselines(PlainRun(load_run_config(None, {"evaluation": {"k": 5}}, given)), **refs)

    return run


def test_a_baseline_is_measured_as_the_model_is(fit: Callable[..., dict[str, Ref]], tmp_path: Path) -> None:
    found = fit(baselines="all", evaluation={"ks": [3]})
    graph = load_graph(tmp_path / "training_graph" / "training_graph.pt")
    assert tuple(found) == tuple(BASELINES)
    for name, ref in found.items():
        record = EvaluationRecord.read(ref.value / "metrics.json")
        expected = evaluate(create_baseline(name).fit(graph), graph, "test", 5, ks=[3]).mean()
        assert expected.items() <= {metric: interval.mean for metric, interval in record.metrics.items()}.items()
        assert record.baselines == {}


def test_the_parameters_are_kept(fit: Callable[..., dict[str, Ref]]) -> None:
    told = json.loads((fit()["item-knn-bm25"].value / "baseline.json").read_text())
    assert told["name"] == "item-knn-bm25"
    assert {"K1": 1.2, "B": 0.5, "neighbours": 500}.items() <= told["parameters"].items()


def test_the_same_split_never_fits_one_twice(fit: Callable[..., dict[str, Ref]]) -> None:
    first, again = fit(), fit(trainer="simple", name="another", baselines="all")
    assert tuple(first) == CHOICES["fast"]
    assert not any(ref.cached for ref in first.values())
    assert {name for name, ref in again.items() if ref.cached} == set(CHOICES["fast"])
    assert all(ref.cached for ref in fit(baselines="all").values())


def test_none_leaves_popularity(fit: Callable[..., dict[str, Ref]]) -> None:
    assert tuple(fit(baselines="none")) == ("popularity",)


def test_a_model_that_has_seen_everything_has_no_baselines(fit: Callable[..., dict[str, Ref]]) -> None:
    assert fit(everything=True) == {}


def test_a_log_without_times_leaves_recent_popularity_out_and_says_so(
    fit: Callable[..., dict[str, Ref]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "training_graph" / "training_graph.pt"
    graph = load_graph(path)
    del graph[LISTENS].last_played
    save_graph(graph, path)
    assert tuple(fit()) == ("popularity", "item-knn-cosine", "item-knn-bm25")
    said = "The baseline recent-popularity is left out: The log has no times, so nothing can be called recent."
    assert said in caplog.messages
    assert all(ref.cached for ref in fit().values())
    assert caplog.messages.count(said) == 1

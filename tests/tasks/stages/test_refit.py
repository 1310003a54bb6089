"""The refit stage: what is published has learned from all listens, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch_geometric.data import HeteroData

from data.graph import load_graph, save_graph
from tasks.cache.key import key_of
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run, present
from tasks.run_config import load_run_config
from tasks.stages.refit import REFIT, refit
from tasks.stages.train import train_models
from tests.tasks.plain_run import PlainRun
from trainers.factory import create_trainer
from trainers.loop.model_files import load_embeddings

SMALL = {"architecture": "gat", "embedding_dim": 8, "heads": 2}


pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def graphs(tmp_path: Path, tiny_graph: HeteroData, tiny_training_graph: HeteroData) -> tuple[Ref, Ref]:
    """What the split stage and the graph stage leave."""
    refs = []
    for name, graph in (("training_graph", tiny_training_graph), ("graph", tiny_graph)):
        (tmp_path / name).mkdir()
        save_graph(graph, tmp_path / name / f"{name}.pt")
        refs.append(Ref(str(tmp_path / name), name))
    for file, column, kind in (("songs", "track_id", "song"), ("artists", "artist_id", "artist")):
        ids = [str(number) for number in range(int(tiny_graph[kind].num_nodes))]
        pq.write_table(pa.table({column: ids}), tmp_path / "graph" / f"{file}.parquet")
    return refs[0], refs[1]


def run_of(kind: type[Run] = PlainRun, **given: Any) -> Run:
    training = {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu"}
    tables = {"model": SMALL, "training": training, "refit": True, "num_epochs": 6}
    return kind(load_run_config(None, tables, given))


@pytest.fixture
def run_both(graphs: tuple[Ref, Ref]) -> Callable[..., tuple[Ref, Ref | None]]:
    """Train and refit: the two models."""

    def run_stages(run: Run) -> tuple[Ref, Ref | None]:
        (model,) = train_models(run, *graphs)
        return model, refit(run, model, graphs[1])

    return run_stages


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_refitted_model_repeats_the_evaluated_one_on_all_listens(
    run_both: Callable[..., tuple[Ref, Ref]], graphs: tuple[Ref, Ref], tmp_path: Path
) -> None:
    run = run_of()
    model, refitted = run_both(run)
    chosen = read(model.value, "history.json")[: read(model.value, "results.json")["best_epoch"]]
    whole = load_graph(graphs[1].value / "graph.pt")
    counts = {f"num_{kind}s": whole[kind].num_nodes for kind in ("user", "song", "artist")}
    trainer = create_trainer("advanced", {**SMALL, **counts}, run.config.training, tmp_path / "by-hand")
    trainer.refit(whole, chosen)
    trainer.save_model(tmp_path / "by-hand" / "model")
    for name in ("model.safetensors", "embeddings.safetensors", "config.json", "history.json"):
        assert (refitted.value / name).read_bytes() == (tmp_path / "by-hand" / "model" / name).read_bytes(), name
    assert (refitted.value / "model.safetensors").read_bytes() != (model.value / "model.safetensors").read_bytes()
    found = load_embeddings(refitted.value)
    assert (len(found.user), len(found.song)) == (whole["user"].num_nodes, whole["song"].num_nodes)


def test_no_metric_of_its_own_is_left(run_both: Callable[..., tuple[Ref, Ref]]) -> None:
    model, refitted = run_both(run_of())
    results = read(refitted.value, "results.json")
    assert results == {
        "best_epoch": None,
        "best_metric": None,
        "epochs_run": read(model.value, "results.json")["best_epoch"],
        "stopped_early": False,
        "test": {},
        "trained_on_everything": True,
        "refit": True,
    }
    assert all(set(record) == {"epoch", "lr", "loss"} for record in read(refitted.value, "history.json"))


def test_what_was_refitted_is_not_refitted_again(run_both: Callable[..., tuple[Ref, Ref]]) -> None:
    first, again = run_both(run_of())[1], run_both(run_of())[1]
    assert (first.cached, again.cached, again.sha256) == (False, True, first.sha256)


def test_more_listens_are_refitted_anew(
    graphs: tuple[Ref, Ref], make_graph: Callable[..., HeteroData], tmp_path: Path
) -> None:
    run = run_of()
    (model,) = train_models(run, *graphs)
    first = refit(run, model, graphs[1])
    (tmp_path / "more").mkdir()
    save_graph(make_graph(num_rows=900), tmp_path / "more" / "graph.pt")
    second = refit(run, model, Ref(str(tmp_path / "more"), "more"))
    assert first is not None
    assert second is not None
    weights = [(model.value / "model.safetensors").read_bytes() for model in (first, second)]
    assert weights[0] != weights[1]


def test_the_key_follows_the_training_but_not_the_limit_of_epochs() -> None:
    class OnlyKeys(Run):
        def execute(self, stage: Stage, settings: Any, code: Any = (), **inputs: Any) -> Ref:
            return Ref(key_of(stage.parts(settings, present(inputs), code)), "")

    def key(run: Run) -> str | None:
        found = refit(run, Ref(str(evaluated), "a"), Ref("graph", "b"))
        return found and found.path

    evaluated = REFIT.store.root / "evaluated"
    evaluated.mkdir(parents=True)
    (evaluated / "results.json").write_text('{"trained_on_everything": false}')
    assert key(run_of(OnlyKeys)) == key(run_of(OnlyKeys, num_epochs=9))
    assert key(run_of(OnlyKeys)) != key(run_of(OnlyKeys, training={"lr": 0.5}))


def test_no_refit_is_made_unless_it_is_asked_for(run_both: Callable[..., tuple[Ref, Ref | None]]) -> None:
    assert run_both(run_of(refit=False))[1] is None


def test_a_model_of_all_listens_is_kept_as_it_is(
    run_both: Callable[..., tuple[Ref, Ref | None]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert run_both(run_of(trainer="simple"))[1] is None
    assert "There is nothing to refit: the simple trainer has trained on all listens already." in caplog.messages

"""The main job as its user sees it: what runs, what is cached, and why."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from data.code import digests
from data.errors import InputError
from registry.backend.client import RegistryClient
from registry.champion import promote

BASELINES = ["popularity", "recent-popularity", "item-knn-cosine", "item-knn-bm25"]
AFTER_SPLIT = ["audit", "train", "baseline-popularity", "evaluate", "register", "report"]
STAGES = ["ingest", "graph", "split", *AFTER_SPLIT]


def test_the_first_run_registers_a_version_and_the_second_has_nothing_to_do(trained: Any) -> None:
    first = trained.first
    assert first.state == "Completed"
    assert first.ran == dict.fromkeys(STAGES, "first run")
    registered = first.counts["register"]
    assert registered["version"] == 1
    assert registered["decision"].startswith(("Promoted: ", "Held: "))
    assert len(registered["decision"]) > len("Promoted: ")

    second = trained.run()
    assert second.state == "Cached"
    assert second.message == "Nothing new: every stage was cached."
    assert second.ran == {}
    assert second.folders == first.folders
    assert second.counts["register"] == registered


def test_the_stored_graph_is_the_published_one_also_after_somebody_damaged_it(trained: Any) -> None:
    stored = trained.first.folders["graph"] / "graph.pt"
    published = trained.home / "data" / "graph.pt"
    assert published.read_bytes() == stored.read_bytes()
    published.write_bytes(b"damage")
    assert trained.run().state == "Cached"
    assert published.read_bytes() == stored.read_bytes()


def test_a_log_that_was_only_touched_is_the_same_log(trained: Any) -> None:
    later = trained.log.stat().st_mtime + 60
    os.utime(trained.log, (later, later))
    assert trained.run().ran == {}


def test_one_more_listen_runs_everything(trained: Any) -> None:
    append_a_listen(trained.log)
    again = trained.run()
    assert list(again.ran) == STAGES
    assert again.ran["ingest"] == "input log"
    assert again.ran["graph"] == "input listens"
    assert again.ran["split"] == "input graph; input listens"
    assert again.ran["train"] == "input training_graph; input graph"
    assert again.counts["register"]["version"] == 2


def append_a_listen(log: Path) -> None:
    """Let the first user hear a song for the first time."""
    events = pq.read_table(log)
    heard = events.filter(pc.equal(events["user_id"], events["user_id"][0]))["track_id"]
    new = events.filter(pc.invert(pc.is_in(events["track_id"], heard.combine_chunks()))).slice(0, 1)
    place = new.schema.get_field_index("user_id")
    new = new.set_column(
        place, "user_id", pa.array([events["user_id"][0].as_py()], events.schema.field("user_id").type)
    )
    pq.write_table(pa.concat_tables([events, new]), log)


def test_another_seed_of_the_training_leaves_the_split_alone(trained: Any) -> None:
    again = trained.run(training={"seed": 1})
    assert list(again.ran) == ["audit", "train", "evaluate", "register", "report"]
    assert again.ran["train"] == "config training.seed: not set → 1"


def test_a_run_that_starts_from_a_version_records_it_and_is_cached(trained: Any) -> None:
    warm = trained.run(training={"warm_start": "1"})
    assert list(warm.ran) == ["warm-start", "audit", "train", "evaluate", "register", "report"]
    assert warm.counts["warm-start"]["from"] == "version 1"
    saved = json.loads((warm.folders["train"] / "config.json").read_text())
    assert len(saved["warmed_from"]) == 64
    manifest = json.loads((warm.folders["register"] / "bundle" / "manifest.json").read_text())
    first, second = manifest["facts"]["seen_splits"]
    assert first == second  # its own split, then that of version 1
    assert trained.run(training={"warm_start": "1"}).state == "Cached"


def test_a_run_can_start_from_a_version_that_was_refitted(trained: Any) -> None:
    refitted = trained.run(refit=True)
    assert refitted.counts["register"]["version"] == 2
    warm = trained.run(refit=True, training={"warm_start": "2"})
    assert warm.state == "Completed"
    assert warm.counts["warm-start"]["from"] == "version 2"
    evaluated = load_file(refitted.folders["train"] / "model.safetensors")
    started = load_file(warm.folders["warm-start"] / "bundle" / "evaluated_model.safetensors")
    assert all(torch.equal(started[name], value) for name, value in evaluated.items())


def test_tensorboard_and_mlflow_show_the_same_numbers(trained: Any) -> None:
    (curves,) = (trained.home / "artifacts" / "tensorboard" / "songgraph").iterdir()
    # files that are written within one second may be read in another order, which then looks like a restart
    events = EventAccumulator(str(curves), purge_orphaned_data=False).Reload()
    run = RegistryClient()._client.get_run(trained.first.counts["register"]["run_id"])
    by_epoch = {name for name in events.Tags()["scalars"] if not name.startswith("best/")}
    assert {"loss", "lr", "recall@10", "test/recall@10"} <= by_epoch
    for name in by_epoch:
        assert run.data.metrics[name.replace("@", "_at_")] == pytest.approx(events.Scalars(name)[-1].value), name
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = HParamsPluginData.FromString(content).session_start_info.hparams
    assert set(shown) <= set(run.data.params)
    assert (curves / "projector_config.pbtxt").is_file()


def test_which_champion_a_run_starts_from_is_decided_once_for_a_log(trained: Any) -> None:
    """Else each run of a night would start from the model of the one before it, and nothing would ever be cached."""
    first = trained.run(name="other", training={"warm_start": "champion"})
    assert first.counts["warm-start"]["from"] == "random weights"
    promote(RegistryClient(), "other", 1, why="to start from", force="a test")
    again = trained.run(name="other", training={"warm_start": "champion"})
    assert again.state == "Cached"
    append_a_listen(trained.log)
    assert trained.run(name="other", training={"warm_start": "champion"}).counts["warm-start"]["from"] == "version 1"


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("7", "has no version or alias '7'; it has 1"),
        (1, "training.warm_start is 1; give 'champion', a version in quotes, or a bundle's folder"),
    ],
)
def test_a_start_that_is_not_there_is_named(trained: Any, start: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        trained.run(training={"warm_start": start})


def test_a_start_from_a_model_of_another_split_is_refused_before_training(trained: Any) -> None:
    with pytest.raises(InputError, match="which this one starts from has seen"):
        trained.run(training={"warm_start": "1"}, split={"salt": 1})


@pytest.fixture
def edit_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Let a module's source have further lines, as the digest of the code sees it."""
    source_file = digests.source_file

    def edit(module: str, lines: str) -> None:
        edited = tmp_path / f"{module}.py"
        edited.write_text(source_file(module).read_text(encoding="utf-8") + lines, encoding="utf-8")
        monkeypatch.setattr(digests, "source_file", lambda name: edited if name == module else source_file(name))

    return edit


def test_a_changed_line_of_the_split_runs_the_split_and_what_follows(trained: Any, edit_source: Any) -> None:
    edit_source("data.split", "\nROUNDS = 3\n")
    again = trained.run()
    assert list(again.ran) == ["split", *AFTER_SPLIT]
    assert set(again.ran.values()) == {"code data.split"}
    assert again.counts["register"]["version"] == 1  # the same bundle is the same version


def test_a_changed_comment_runs_nothing(trained: Any, edit_source: Any) -> None:
    edit_source("data.split", "\n# Said more clearly.\n")
    assert trained.run().state == "Cached"


def test_a_deleted_graph_is_made_again_and_the_reason_says_so(trained: Any) -> None:
    shutil.rmtree(trained.first.folders["graph"])
    again = trained.run()
    assert again.ran == {"graph": "the stored result is gone"}
    assert (again.folders["graph"] / "graph.pt").exists()
    assert trained.run().state == "Cached"


def test_a_damaged_graph_is_made_again_and_the_reason_says_so(trained: Any) -> None:
    path = trained.first.folders["graph"] / "graph.pt"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert trained.run().ran == {"graph": "the stored result is damaged: graph.pt does not match its digest"}
    assert path.read_bytes() == sound


def test_a_version_that_is_gone_from_the_registry_is_registered_again(trained: Any, empty_registry: Path) -> None:
    shutil.copyfile(empty_registry, trained.home / "artifacts" / "mlflow" / "mlflow.db")
    gone = "what the stored result points to is gone"
    assert trained.run().ran == {"register": gone, "report": "input registration"}


CACHED_RUN = """
import json, sys
from flows.train import train

state = train(**json.loads(sys.argv[1]), return_state=True)
loaded = {"torch", "torch_geometric"} & {name.partition(".")[0] for name in sys.modules}
print(state.name, sorted(loaded))
"""


@pytest.mark.slow
def test_a_cached_run_loads_neither_torch_nor_pyg(songgraph: Callable, trained: Any) -> None:
    ended = songgraph("-c", CACHED_RUN, json.dumps(trained.asked))
    assert ended.stdout.strip() == "Cached []", ended.stderr

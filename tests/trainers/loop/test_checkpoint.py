"""A checkpoint is there whole or not at all, and only its own run takes it."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data.code import digests
from data.errors import InputError
from data.graph import save_graph
from trainers.loop.checkpoint import CheckpointFile, fingerprint

STATE = {"epoch": 2, "num_epochs": 4, "model": {"table": torch.ones(3)}}


@pytest.fixture
def checkpoint(tmp_path) -> CheckpointFile:
    return CheckpointFile(tmp_path, "abc")


@pytest.mark.parametrize(("num_epochs", "goes_on"), [(1, False), (2, True), (4, True), (6, True)])
def test_an_unfinished_run_goes_on(checkpoint, num_epochs, goes_on):
    checkpoint.save(STATE)
    assert (checkpoint.load(num_epochs) is not None) == goes_on


@pytest.mark.parametrize(("num_epochs", "goes_on"), [(2, False), (4, False), (5, True)])
def test_a_finished_run_goes_on_with_more_epochs_only(checkpoint, num_epochs, goes_on):
    checkpoint.save(STATE)
    checkpoint.finish()
    assert (checkpoint.load(num_epochs) is not None) == goes_on


def test_there_is_nothing_at_first(checkpoint):
    assert checkpoint.load(4) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "no key", "one bit"])
def test_a_damaged_checkpoint_is_a_warning(checkpoint, damage, caplog):
    checkpoint.save(STATE if damage != "no key" else {"epoch": 1})
    path = checkpoint.unfinished
    whole = path.read_bytes()
    content = {"cut": whole[:300], "empty": b"", "text": b"not a checkpoint", "no key": whole}
    path.write_bytes(content[damage] if damage in content else _with_flipped_bit(whole))
    assert checkpoint.load(4) is None
    assert "is damaged" in caplog.text


def _with_flipped_bit(content: bytes) -> bytes:
    """One bit of the three ones of the table."""
    at = content.index(struct.pack("<3f", 1.0, 1.0, 1.0))
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def test_a_checkpoint_that_would_run_code_is_refused(checkpoint, caplog):
    torch.save({"path": Path("x")}, checkpoint.unfinished)
    assert checkpoint.load(4) is None
    assert "is damaged" in caplog.text


def test_a_failed_write_keeps_the_old_one(checkpoint, monkeypatch, tmp_path):
    checkpoint.save(STATE)

    def full_disk(state, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        checkpoint.save({**STATE, "epoch": 3})
    monkeypatch.undo()
    assert checkpoint.load(4)["epoch"] == 2
    assert list(tmp_path.iterdir()) == [checkpoint.unfinished]


def test_other_runs_are_left_alone(checkpoint, tmp_path, make_trainer, tiny_graph, caplog):
    checkpoint.save(STATE)
    with caplog.at_level("INFO"):
        make_trainer("simple", tmp_path).train(tiny_graph, 1)
    assert checkpoint.load(4)["epoch"] == 2
    assert "checkpoint-abc.pt is of another config, graph or code; it is left alone." in caplog.messages


def test_a_damaged_checkpoint_does_not_stop_a_trainer(make_trainer, tiny_graph):
    finished = Path(make_trainer("simple").train(tiny_graph, 1)["checkpoint"])
    finished.write_bytes(b"damage")
    assert make_trainer("simple").train(tiny_graph, 2)["epochs_run"] == 2


def test_fingerprint_follows_config_graph_and_code():
    first = fingerprint({"lr": 0.1}, "graph", [CheckpointFile])
    assert first == fingerprint({"lr": 0.1}, "graph", [CheckpointFile])
    others = {fingerprint({"lr": 0.2}, "graph", [CheckpointFile]), fingerprint({"lr": 0.1}, "other", [CheckpointFile])}
    others.add(fingerprint({"lr": 0.1}, "graph", [argparse.Action]))
    assert first not in others


def test_code_of_a_class_outside_the_project_counts_but_not_its_comments(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def digest(text):
        (tmp_path / "own_trainer.py").write_text(text)
        monkeypatch.delitem(sys.modules, "own_trainer", raising=False)
        importlib.invalidate_caches()
        return fingerprint({}, "graph", [importlib.import_module("own_trainer").Own])

    plain = digest("class Own:\n    x = 1\n")
    assert plain == digest('class Own:\n    """Why."""\n\n    x = 1  # how\n')
    assert plain != digest("class Own:\n    x = 12\n")


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Let modules of the project have another source, as the digest of the code sees it."""
    source_file, edited = digests.source_file, {}
    monkeypatch.setattr(digests, "source_file", lambda name: edited.get(name) or source_file(name))

    def write(module: str, old: str, new: str) -> None:
        source = source_file(module).read_text(encoding="utf-8")
        assert old in source
        (tmp_path / f"{module}.py").write_text(source.replace(old, new), encoding="utf-8")
        edited[module] = tmp_path / f"{module}.py"

    return write


@pytest.fixture
def cut_off(make_trainer, tiny_graph, monkeypatch):
    """Train until the process is cut off in epoch 3 of 4; a new trainer may go on."""
    trainer = make_trainer("advanced")
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer), "train_epoch", _cut_off_in(3, type(trainer).train_epoch))
        with pytest.raises(KeyboardInterrupt):
            trainer.train(tiny_graph, 4)
    return make_trainer("advanced")


def _cut_off_in(epoch, train_epoch):
    def run(trainer, graph):
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        return train_epoch(trainer, graph)

    return run


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("data.graph", "weight", "weigth"),
        ("evaluation.ranking", "return", "return  0,"),
        ("models.graph.aggregation", "+", "-"),
    ],
)
def test_a_changed_line_of_any_module_that_is_reached_starts_anew_and_says_so(
    cut_off, tiny_graph, edit, caplog, module, old, new
):
    edit(module, old, new)
    with caplog.at_level("INFO"):
        cut_off.train(tiny_graph, 4)
    assert "is of another config, graph or code; it is left alone." in caplog.text
    assert "Resuming" not in caplog.text


def test_a_changed_docstring_or_comment_goes_on(cut_off, tiny_graph, edit, caplog):
    edit("data.graph", '"""The graph of users', '"""A graph of users')
    edit("trainers.sampling", "import torch\n", "# why\nimport torch\n")
    with caplog.at_level("INFO"):
        assert len(cut_off.train(tiny_graph, 4)["history"]) == 4
    assert "Resuming after epoch 2 of 4." in caplog.messages


MODULE = """
import time
from pathlib import Path
from data.graph import load_graph
from trainers.advanced import AdvancedTrainer

class Pausing(AdvancedTrainer):
    paused = None

    def train_epoch(self, graph):
        metrics = super().train_epoch(graph)
        if self.current_epoch == 3 and self.paused:
            self.paused.touch()
            time.sleep(60)
        return metrics

def train(graph, folder, paused=None):
    graph, folder = load_graph(Path(graph)), Path(folder)
    counts = {f"num_{kind}s": graph[kind].num_nodes for kind in ("user", "song", "artist")}
    trainer = Pausing(counts, {"batch_size": 64, "eval_k": 5, "device": "cpu"}, folder / "out")
    trainer.paused = paused and Path(paused)
    trainer.train(graph, 6)
    trainer.save_model(folder / "model")
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(tiny_graph, tmp_path, monkeypatch):
    save_graph(tiny_graph, tmp_path / "graph.pt")
    (tmp_path / "train_pausing.py").write_text(MODULE)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[3]}:{tmp_path}"}
    paused, code = tmp_path / "paused", "import sys, train_pausing; train_pausing.train(*sys.argv[1:])"
    command = [sys.executable, "-c", code, tmp_path / "graph.pt", tmp_path / "killed", paused]
    killed = subprocess.Popen(command, env=environment)
    while not paused.exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [path.name.split("-")[0] for path in (tmp_path / "killed" / "out").iterdir()] == ["checkpoint"]

    monkeypatch.syspath_prepend(tmp_path)
    train_pausing, epochs = importlib.import_module("train_pausing"), []
    monkeypatch.setattr(train_pausing.Pausing, "on_epoch_start", lambda self: epochs.append(self.current_epoch))
    for folder in ("killed", "whole"):
        train_pausing.train(tmp_path / "graph.pt", tmp_path / folder)
    assert epochs == [3, 4, 5, 6, *range(1, 7)]
    for path in sorted((tmp_path / "killed" / "model").iterdir()):
        assert path.read_bytes() == (tmp_path / "whole" / "model" / path.name).read_bytes(), path.name

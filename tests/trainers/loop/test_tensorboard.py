"""What TensorBoard shows of a training, read back with TensorBoard's own reader."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from data.errors import InputError
from models.base import Embeddings
from trainers.advanced import AdvancedTrainer
from trainers.loop.projector import project_songs
from trainers.simple import SimpleTrainer


@pytest.fixture
def train(model_config, training_config, tiny_graph, tmp_path):
    """``train(AdvancedTrainer, epochs=2, lr=0.1)``: what TensorBoard reads afterwards, the results and the trainer."""

    def run(kind=SimpleTrainer, epochs=2, **training):
        trainer = kind(model_config, {**training_config, **training}, tmp_path / "out", tmp_path / "curves")
        results = trainer.train(tiny_graph, epochs)
        everything = {"histograms": 0, "scalars": 0}  # not the latest alone
        return EventAccumulator(str(tmp_path / "curves"), everything).Reload(), results, trainer

    return run


def test_each_metric_is_a_curve(train):
    events, _, _ = train(epochs=3)
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert "in_sample_recall@5" in events.Tags()["scalars"]


def test_histograms_are_shown_on_request(train):
    events, _, trainer = train(histograms=True)
    names = [name for name, _ in trainer.model.named_parameters()]
    assert set(events.Tags()["histograms"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    shown = events.Histograms("weights/table")
    assert [event.step for event in shown] == [1, 2]
    assert shown[-1].histogram_value.num == trainer.model.table.numel()
    assert shown[-1].histogram_value.sum == pytest.approx(float(trainer.model.table.detach().double().sum()))


def test_no_histogram_unless_asked_for(train):
    assert train()[0].Tags()["histograms"] == []


def test_values_that_are_no_numbers_do_not_end_the_training(train):
    class Diverging(SimpleTrainer):
        def on_epoch_end(self, train_metrics, eval_metrics):
            self.model.table.data[0] = math.nan
            return True

        def train_epoch(self, graph):
            found = super().train_epoch(graph)
            self.model.table.data[0] = math.inf
            return found

        def evaluate(self, graph):
            return {"metric": 1.0}

    events, _, trainer = train(Diverging, histograms=True, monitor="metric")
    assert events.Histograms("weights/table")[0].histogram_value.num == trainer.model.table[1:].numel()


def test_histograms_without_a_folder_are_refused(model_config, training_config, tmp_path):
    with pytest.raises(InputError, match="name its folder with tensorboard_dir, or remove the key"):
        SimpleTrainer(model_config, {**training_config, "histograms": True}, tmp_path)


def test_histograms_are_not_part_of_what_is_computed(model_config, training_config, tiny_graph, tmp_path):
    def saved(**training):
        folder = tmp_path / str(len(training))
        trainer = SimpleTrainer(model_config, {**training_config, **training}, folder, folder / "curves")
        trainer.train(tiny_graph, 1)
        return (trainer.save_model(folder / "model") / "config.json").read_bytes()

    assert saved(histograms=True) == saved()


def test_hyper_parameters_stand_beside_what_they_led_to(train):
    events, results, _ = train(AdvancedTrainer, epochs=3, lr=0.05, patience=1)
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = HParamsPluginData.FromString(content).session_start_info.hparams
    assert shown["training_config.lr"].number_value == 0.05
    assert shown["training_config.monitor"].string_value == "None"
    assert shown["model_config.embedding_dim"].number_value == 16
    assert shown["trainer"].string_value == "advanced"
    assert not any("histograms" in name for name in shown)
    (best,), (test,) = events.Scalars("best/recall@5"), events.Scalars("test/recall@5")
    assert best.step == results["best_epoch"]
    assert best.value == pytest.approx(results["best_metric"])
    assert test.value == pytest.approx(results["test"]["recall@5"])


def test_without_a_watched_metric_the_last_epoch_counts(train):
    class Unwatched(SimpleTrainer):
        def watched_metric(self):
            return None

    events, results, _ = train(Unwatched, epochs=2)
    assert results["best_epoch"] is None
    (loss,) = events.Scalars("best/loss")
    assert (loss.step, loss.value) == (2, pytest.approx(results["history"][-1]["loss"]))


@pytest.fixture
def vocabularies(tmp_path, tiny_graph):
    """Songs of which every second has a name, with a tab in it; artists without names."""
    songs, artists = (int(tiny_graph[kind].num_nodes) for kind in ("song", "artist"))
    names = [None if song % 2 else f"Song\t{song}" for song in range(songs)]
    ids = [f"id-{song}" for song in range(songs)]
    pq.write_table(pa.table({"track_id": ids, "track_name": names}), tmp_path / "songs.parquet")
    pq.write_table(pa.table({"artist_id": [f"a{n}" for n in range(artists)]}), tmp_path / "artists.parquet")
    return tmp_path


def test_the_projector_shows_songs_by_name(vocabularies, tiny_graph, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.loop.projector.MOST_SHOWN", 12)
    vectors = Embeddings(torch.zeros(40, 3), torch.arange(90.0).reshape(30, 3))
    project_songs(tmp_path / "curves", vectors, tiny_graph, vocabularies)
    folder = tmp_path / "curves" / "00000" / "songs"
    assert "00000/songs/metadata.tsv" in (tmp_path / "curves" / "projector_config.pbtxt").read_text()
    header, *labels = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
    assert header == ["title", "artist", "train listeners"]
    points = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    listeners = tiny_graph["user", "listens", "song"].edge_index[1].bincount()
    by = tiny_graph["song", "by", "artist"].edge_index
    assert (
        sorted((int(count) for *_, count in labels), reverse=True) == listeners.sort(descending=True)[0][:12].tolist()
    )
    for (title, artist, count), point in zip(labels, points, strict=True):
        song = int(point[0]) // 3
        assert title == (f"id-{song}" if song % 2 else f"Song {song}")
        assert int(count) == listeners[song]
        assert artist == ", ".join(f"a{n}" for n in by[1][by[0] == song].tolist())

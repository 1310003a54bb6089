"""data/synthetic/log.py: the made-up log has the statistics it claims, and more structure than popularity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.graph import BY, LISTENS, build_graph
from data.listens import Listens
from data.split import Part, SplitConfig, mix64, split_listens
from data.synthetic import log as synthetic
from data.synthetic.__main__ import main
from data.synthetic.log import PRESETS, SyntheticConfig, event_tables, write_log

COLUMNS = {
    "user_id": "string",
    "track_id": "string",
    "artist_id": "list<element: string>",
    "played_at": "timestamp[ms, tz=UTC]",
    "ms_played": "int64",
    "duration_ms": "int64",
    "skipped": "bool",
    "track_name": "string",
    "artist_name": "list<element: string>",
}


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.concat_tables(event_tables(SyntheticConfig()))


@pytest.fixture(scope="module")
def log(table) -> pd.DataFrame:
    frame = table.drop_columns(["artist_id", "artist_name"]).to_pandas()
    frame["artist"] = [artists[0] for artists in table["artist_id"].to_pylist()]
    frame["day"] = (frame.played_at - pd.Timestamp("2025-01-01", tz="UTC")).dt.days
    return frame.sort_values(["user_id", "played_at"])


class TestFiles:
    def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(self, tmp_path):
        written = [
            write_log(SyntheticConfig(preset="tiny", seed=seed), tmp_path / name)[0].read_bytes()
            for name, seed in (("a", 3), ("b", 3), ("c", 4))
        ]
        assert written[0] == written[1]
        assert written[0] != written[2]

    def test_columns_are_those_of_the_event_schema(self, tmp_path):
        schema = pq.read_schema(write_log(SyntheticConfig(preset="tiny"), tmp_path)[0])
        assert {field.name: str(field.type) for field in schema} == COLUMNS

    def test_a_big_log_is_divided_by_users_into_files_that_add_up(self, tmp_path, monkeypatch):
        monkeypatch.setattr(synthetic, "EVENTS_A_FILE", 500)
        files = write_log(SyntheticConfig(preset="tiny"), tmp_path)
        parts = [pq.read_table(path) for path in files]
        assert [path.name for path in files] == [f"events-{i:04d}.parquet" for i in range(len(files))]
        assert len(files) >= 4
        assert sum(map(len, parts)) == PRESETS["tiny"]["num_events"]
        users = [set(part["user_id"].to_pylist()) for part in parts]
        assert sum(map(len, users)) == len(set.union(*users)) == PRESETS["tiny"]["num_users"]

    def test_nothing_else_is_left_in_the_folder(self, tmp_path):
        assert write_log(SyntheticConfig(preset="tiny"), tmp_path) == sorted(tmp_path.iterdir())

    def test_a_folder_that_holds_a_log_is_refused(self, tmp_path):
        write_log(SyntheticConfig(preset="tiny"), tmp_path)
        with pytest.raises(InputError, match="holds a log already; remove its"):
            write_log(SyntheticConfig(preset="tiny", seed=1), tmp_path)


class TestStatistics:
    def test_counts_are_the_presets(self, log):
        assert len(log) == PRESETS["small"]["num_events"]
        assert log.user_id.nunique() == PRESETS["small"]["num_users"]
        assert log.user_id.value_counts().min() >= 3
        assert log.track_id.nunique() > 0.9 * PRESETS["small"]["num_songs"]
        assert log.day.between(0, PRESETS["small"]["num_days"]).all()

    def test_no_event_is_there_twice(self, log):
        assert not log.duplicated(["user_id", "track_id", "played_at"]).any()

    @pytest.mark.parametrize(("column", "one_percent", "ten_percent"), [("track_id", 0.1, 0.4), ("artist", 0.06, 0.35)])
    def test_songs_and_artists_follow_a_power_law(self, log, column, one_percent, ten_percent):
        plays = log[column].value_counts().to_numpy()
        assert plays[: max(1, len(plays) // 100)].sum() > one_percent * len(log)
        assert plays[: len(plays) // 10].sum() > ten_percent * len(log)
        rank = np.arange(1, len(plays) // 2)
        slope = np.polyfit(np.log(rank), np.log(plays[: len(rank)]), 1)[0]
        assert -1.5 < slope < -0.4

    def test_ids_say_nothing_about_popularity(self, log):
        plays = log.track_id.value_counts().sort_index().to_numpy()
        assert abs(np.corrcoef(np.arange(len(plays)), plays)[0, 1]) < 0.1

    def test_users_hear_songs_again_and_skip_those_less(self, log):
        again = log.duplicated(["user_id", "track_id"])
        assert 0.4 < again.mean() < 0.8
        assert 0.05 < log.skipped.mean() < 0.3
        assert log.skipped[again].mean() < 0.8 * log.skipped[~again].mean()

    def test_what_was_skipped_was_heard_in_part_and_the_rest_almost_whole(self, log):
        completion = log.ms_played / log.duration_ms
        assert completion.between(0, 1).all()
        assert completion[log.skipped].max() < 0.5
        assert completion[~log.skipped].min() > 0.8

    def test_listens_come_in_sessions_at_the_users_time_of_day(self, log):
        pause = log.groupby("user_id").played_at.diff().dt.total_seconds().dropna()
        assert 0.8 < (pause < 900).mean() < 0.98
        angle = np.exp(2j * np.pi * (log.played_at.dt.hour + log.played_at.dt.minute / 60) / 24)
        own = np.abs(pd.Series(angle, index=log.index).groupby(log.user_id).mean()).median()
        assert own > 0.7 > np.abs(angle.mean())

    def test_new_users_and_songs_appear_all_along(self, log):
        for column in ("user_id", "track_id"):
            first = log.groupby(column).day.min()
            assert first.between(60, 120).mean() > 0.05
            assert first.between(120, 180).mean() > 0.03

    def test_taste_drifts(self, log):
        """The artists of a user's first and last third have less in common than those of odd and even days."""
        steady = log[log.user_id.isin(log.user_id[log.day < 30])]
        apart = overlap(steady[steady.day < 60], steady[steady.day >= 120])
        together = overlap(steady[steady.day % 2 == 0], steady[steady.day % 2 == 1])
        assert apart < 0.85 * together

    def test_a_few_songs_have_two_artists_with_a_name_each(self, table):
        ids, names = table["artist_id"].to_pylist(), table["artist_name"].to_pylist()
        assert 0.01 < np.mean([len(artists) == 2 for artists in ids]) < 0.15
        assert all(len(a) == len(n) == len(set(a)) for a, n in zip(ids, names, strict=True))
        pairs = {pair for a, n in zip(ids, names, strict=True) for pair in zip(a, n, strict=True)}
        assert len(pairs) == len({i for i, _ in pairs}) == len({n for _, n in pairs})


def overlap(left: pd.DataFrame, right: pd.DataFrame) -> float:
    """Mean over users of the cosine of the play counts of their artists."""
    counts = [part.groupby(["user_id", "artist"]).size() for part in (left, right)]
    common = (counts[0] * counts[1]).dropna().groupby("user_id").sum()
    norms = [np.sqrt((count**2).groupby("user_id").sum()) for count in counts]
    return float((common / (norms[0] * norms[1])).dropna().mean())


class TestStructure:
    """Simple scorers that use who listened to what, or the artist, find what popularity does not."""

    @pytest.mark.parametrize(("strategy", "gain"), [("random", 2.0), ("temporal", 1.5)])
    def test_popularity_is_beaten_clearly(self, log, strategy, gain):
        train, test, artists = matrices(log, strategy)
        popularity = train.sum(axis=0)
        norm = np.sqrt(np.maximum(popularity, 1))
        neighbours = (train.T @ train) / np.outer(norm, norm)
        np.fill_diagonal(neighbours, 0)
        affinity = np.log1p(train @ artists @ artists.T) * np.log1p(popularity)
        baseline = recall_at_10(np.broadcast_to(popularity, train.shape), train, test)
        assert baseline > 0.02
        assert recall_at_10(train @ neighbours, train, test) > gain * baseline
        assert recall_at_10(affinity, train, test) > gain * baseline


def matrices(log: pd.DataFrame, strategy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train pairs (U, S), test pairs (U, S) and songs by artist (S, A), as 0 and 1."""
    user, song, artist = (pd.factorize(log[column], sort=True)[0] for column in ("user_id", "track_id", "artist"))
    rows = np.unique(np.stack([user, song, log.day.to_numpy()]), axis=1)
    listens = Listens(rows[0], rows[1], np.ones(rows.shape[1], dtype=np.int64), day=rows[2])
    hashes = [mix64(np.arange(n + 1, dtype=np.uint64)).view(np.int64) for n in (user.max(), song.max())]
    part = split_listens(listens, *hashes, SplitConfig(strategy=strategy)).part
    train, test = (np.zeros((user.max() + 1, song.max() + 1), dtype=np.float32) for _ in range(2))
    train[tuple(listens.pairs()[:, part == Part.TRAIN])] = 1
    test[tuple(listens.pairs()[:, part == Part.TEST])] = 1
    artists = np.zeros((song.max() + 1, artist.max() + 1), dtype=np.float32)
    artists[song, artist] = 1
    return train, test, artists


def recall_at_10(scores: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    users = test.sum(axis=1) > 0
    hidden = np.where(train > 0, -np.inf, scores)[users]
    top = np.argsort(-hidden, axis=1, kind="stable")[:, :10]
    return float((np.take_along_axis(test[users], top, axis=1).sum(axis=1) / test[users].sum(axis=1)).mean())


def test_ingest_keeps_every_event_and_the_graph_has_what_the_log_says(tmp_path, table):
    (tmp_path / "listens").mkdir()
    write_log(SyntheticConfig(), tmp_path / "log")
    counts = ingest(IngestConfig(events=(str(tmp_path / "log"),)), tmp_path / "listens")
    graph = build_graph(tmp_path / "listens")
    assert counts["kept"] == counts["read"] == len(table)
    assert graph[LISTENS].plays.sum() == len(table)
    assert graph[LISTENS].skips.sum() == table["skipped"].to_numpy().sum()
    assert graph[BY].edge_index.size(1) > graph["song"].num_nodes
    assert pq.read_table(tmp_path / "listens" / "artists.parquet")["artist_name"].null_count == 0


def test_configs_are_parsed_without_the_heavy_libraries():
    modules = "data.synthetic.log, data.events.ingest_config, data.events.log_files, data.split, data.weights"
    code = f"import sys, {modules}; print({{'torch', 'pandas', 'duckdb'}} & set(sys.modules))"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


class TestSizes:
    @pytest.mark.parametrize(
        "counts",
        [
            {"num_users": 1, "num_songs": 1, "num_artists": 1, "num_events": 3, "num_days": 1},
            {"num_users": 3, "num_songs": 5, "num_artists": 5, "num_events": 9, "num_days": 2},
            {"num_users": 50, "num_songs": 30, "num_artists": 2, "num_events": 150},
        ],
    )
    def test_the_smallest_logs_work(self, counts):
        tables = list(event_tables(SyntheticConfig(preset="tiny", **counts)))
        assert sum(map(len, tables)) == counts["num_events"]

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"num_songs": 10}, r"synthetic: 10 songs do not suffice for 250 artists; num_songs has to be at least"),
            (
                {"num_events": 10},
                r"synthetic: 10 events do not suffice for 1000 users; num_events has to be at least 3",
            ),
            (
                {"preset": "huge"},
                r"synthetic\.preset is 'huge': input should be 'tiny', 'small', 'medium' or 'large'\.",
            ),
            ({"num_user": 10}, r"synthetic has the unknown key 'num_user'\. Did you mean 'num_users'\?"),
        ],
    )
    def test_counts_that_do_not_fit_are_a_sentence(self, given, sentence):
        with pytest.raises(InputError, match=sentence):
            SyntheticConfig.parse(given, "synthetic")


class TestCommandLine:
    def test_it_writes_the_log_and_says_where(self, tmp_path, capsys):
        assert main(["--preset", "tiny", "--events", "500", "--out", str(tmp_path / "logs")]) == 0
        assert "500 listens in 1 file(s) in" in capsys.readouterr().out
        assert len(pq.read_table(tmp_path / "logs")) == 500

    def test_what_cannot_be_is_a_sentence_without_a_traceback(self, tmp_path, capsys):
        assert main(["--seed", "-1", "--out", str(tmp_path)]) == 2
        assert "synthetic.seed is -1: input should be greater than or equal to 0." in capsys.readouterr().err

"""data/profile.py: the numbers of a profile reconcile with the graph and with what the ingest stage counted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.graph import LISTENS, build_graph
from data.profile import degree_profile, graph_profile

LOG = """user_id,track_id,artist_id,played_at,ms_played
ann,one,x,2025-01-01T10:00:00Z,200000
ann,one,x,2025-01-02T10:00:00Z,200000
ann,two,y,2025-01-02T11:00:00Z,200000
bob,one,x,2025-01-03T10:00:00Z,200000
bob,one,x,2025-01-03T10:00:00Z,200000
bob,two,y,2025-01-04T10:00:00Z,10
,two,y,2025-01-04T10:00:00Z,200000
"""


@pytest.fixture
def listens(tmp_path: Path) -> Path:
    """A log with a duplicate, a row that a rule drops and one that is rejected."""
    (tmp_path / "log.csv").write_text(LOG)
    folder = tmp_path / "listens"
    folder.mkdir()
    ingest(IngestConfig(events=[str(tmp_path / "log.csv")], min_ms_played=1000, max_rejected=0.5), folder)
    return folder


def test_the_rows_of_the_log_are_all_accounted_for(listens):
    profile = graph_profile(build_graph(listens), listens)
    rows = profile["rows"]
    assert rows["read"] == 7 == rows["kept"] + rows["rejected"] + rows["duplicates"] + sum(rows["dropped"].values())
    assert (rows["kept"], rows["rejected"], rows["duplicates"], rows["dropped"]["min_ms_played"]) == (4, 1, 1, 1)
    assert sum(rows["rejected_by_reason"].values()) == 1
    assert profile["rejected_share"] == pytest.approx(1 / 7)


def test_counts_days_and_plays_are_those_of_the_graph(listens):
    graph = build_graph(listens)
    profile = graph_profile(graph, listens)
    counted = {
        name: profile[name] for name in ("users", "songs", "artists", "pairs", "song_artists", "events", "plays")
    }
    assert counted == {"users": 2, "songs": 2, "artists": 2, "pairs": 3, "song_artists": 2, "events": 4, "plays": 4}
    assert profile["plays"] == int(graph[LISTENS].plays.sum())
    assert (profile["first_day"], profile["last_day"]) == ("2025-01-01", "2025-01-03")
    assert profile["degrees"]["user"]["max"] == 2
    assert profile["degrees"]["song"]["mean"] == 1.5
    assert profile["degrees"]["artist"]["histogram"] == {"edges": [1, 2], "counts": [2]}


def test_it_is_plain_json(listens):
    profile = graph_profile(build_graph(listens), listens)
    assert json.loads(json.dumps(profile)) == profile


def test_a_log_without_times_and_artists_has_a_profile(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,track_id\nann,one\nbob,one\n")
    folder = tmp_path / "listens"
    folder.mkdir()
    ingest(IngestConfig(events=[str(tmp_path / "log.csv")]), folder)
    profile = graph_profile(build_graph(folder), folder)
    assert profile["first_day"] is None
    assert profile["artists"] == 0
    assert profile["degrees"]["artist"]["histogram"] == {"edges": [1], "counts": []}


@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_every_degree_is_in_one_bin_or_isolated(degrees):
    profile = degree_profile(np.array(degrees, dtype=np.int64))
    edges, counts = profile["histogram"]["edges"], profile["histogram"]["counts"]
    assert len(edges) == len(counts) + 1
    assert counts == [sum(low <= degree < high for degree in degrees) for low, high in itertools.pairwise(edges)]
    assert sum(counts) + profile["isolated"] == len(degrees)


def test_missing_and_damaged_counts_are_named(listens):
    graph = build_graph(listens)
    path = listens / "counts.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"counts\.json is not readable JSON; delete it and run the ingest stage\.$"):
        graph_profile(graph, listens)
    path.unlink()
    with pytest.raises(
        InputError, match=r"^The listens folder lacks counts\.json \(looked for .*\); run the ingest stage\.$"
    ):
        graph_profile(graph, listens)

"""Options become keys of a config, whatever their value, and the table is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from tasks.options import RUN_OPTIONS, overrides, read_options


def test_a_value_of_zero_is_given_and_an_absent_one_is_not() -> None:
    assert read_options(RUN_OPTIONS, {"seed": 0, "patience": None, "events": []}) == ({"training.seed": 0}, [])


def test_paths_start_where_the_person_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    values, _ = read_options(RUN_OPTIONS, {"events": ["logs/*.csv"], "track_artists": "tracks.csv"})
    assert values == {"events": [f"{tmp_path}/logs/*.csv"], "ingest.track_artists": f"{tmp_path}/tracks.csv"}


def test_settings_are_laid_over_options() -> None:
    values, settings = read_options(RUN_OPTIONS, {"patience": 3, "set": ["training.lr=0.1", "name=tonight"]})
    assert overrides(values, settings) == {"training": {"patience": 3, "lr": 0.1}, "name": "tonight"}


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="but also model=gat; give only one of them"):
        overrides({}, ["model=gat", "model.dropout=0.2"])


def test_no_two_options_share_a_flag_or_a_key() -> None:
    assert (
        len({option.flag for option in RUN_OPTIONS}) == len({option.key for option in RUN_OPTIONS}) == len(RUN_OPTIONS)
    )

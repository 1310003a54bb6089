from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.gate.data_checks import check_data
from registry.gate.gate_config import DataCheck, GateConfig

USUAL = {"plays": 1000, "pairs": 500, "users": 100, "rejected_share": 0.001}


def failed(checks: tuple[DataCheck, ...]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def checked(profile: dict[str, Any], recent: list[dict[str, Any]], **config: float) -> tuple[DataCheck, ...]:
    return check_data({**USUAL, **profile}, recent, None, GateConfig(**config))


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ({}, []),
        ({"plays": 801}, []),
        ({"plays": 799}, ["plays"]),
        ({"plays": 2001}, ["plays"]),
        ({"pairs": 300, "users": 60}, ["pairs", "users"]),
        ({"rejected_share": 0.0059}, []),
        ({"rejected_share": 0.0061}, ["rejects"]),
    ],
)
def test_each_number_has_its_limit(profile: dict[str, Any], names: list[str]) -> None:
    assert failed(checked(profile, [USUAL] * 5)) == names


def test_one_odd_night_does_not_move_what_is_usual() -> None:
    assert failed(checked({}, [{**USUAL, "plays": 10}, USUAL, USUAL])) == []


def test_only_the_last_five_count() -> None:
    small = {**USUAL, "plays": 100}
    assert failed(checked({}, [USUAL] * 5 + [small] * 6)) == []


def test_a_check_says_what_was_found_and_what_is_allowed() -> None:
    says = {check.name: check.says for check in checked({"plays": 700, "rejected_share": 0.02}, [USUAL] * 3)}
    assert says["plays"] == "plays 700 against 1,000 in the last 3 versions, allowed 800 to 2,000"
    assert says["rejects"] == "rejected rows 2.00% against 0.10% in the last 3 versions, allowed up to 0.60%"


def test_without_an_earlier_log_nothing_is_wrong() -> None:
    (only,) = checked({}, [])
    assert (only.passed, only.says) == (True, "there is no earlier log to compare with")


def test_a_log_without_a_number_is_not_compared_by_it() -> None:
    assert [check.name for check in check_data({"plays": 1000}, [USUAL], None, GateConfig())] == ["plays"]


def songs(path: Path, first: int, last: int) -> Path:
    pq.write_table(pa.table({"track_id": [f"t{song}" for song in range(first, last)]}), path)
    return path


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [(0, 100, []), (0, 130, []), (0, 150, ["new songs"]), (9, 100, []), (11, 100, ["lost songs"])],
)
def test_new_and_lost_songs_have_limits(tmp_path: Path, first: int, last: int, names: list[str]) -> None:
    both = songs(tmp_path / "now.parquet", first, last), songs(tmp_path / "before.parquet", 0, 100)
    assert failed(check_data(USUAL, [], both, GateConfig())) == names


def test_songs_are_counted_in_words(tmp_path: Path) -> None:
    both = songs(tmp_path / "now.parquet", 20, 110), songs(tmp_path / "before.parquet", 0, 100)
    new, lost = check_data(USUAL, [], both, GateConfig())
    assert new.says == "10 of 90 songs (11.1%) are unknown to the champion, allowed up to 30%"
    assert lost.says == "20 of 100 songs (20.0%) of the champion are gone, allowed up to 10%"

"""The winner's file: an ordinary config that says how it was found, and never in the place of another by accident."""

from __future__ import annotations

import errno
import math
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from tasks.run_config import load_run_config
from tasks.tuning.space import search_space
from tasks.tuning.study import SearchStudy
from tasks.tuning.winner import (
    refuse_existing,
    source_tables,
    toml_lines,
    winner_path,
    winner_text,
    write_winner,
)

SOURCE = """# python -m flows.train --config configs/example.toml
name = "example"
num_epochs = 4
seeds = 2

[ingest]
events = "${NO_SUCH_VARIABLE:-logs}/2026-*.parquet"
columns = { track_id = "a \\"song\\"" }
since = 2026-01-01

[model]
embedding_dim = 16

[training]
lr = 0.02
patience = 2

[tune]
trials = 3

[tune.space]
lr = { low = 0.01, high = 0.1, log = true }
"""

keys = st.text(min_size=1, max_size=8)
plain = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.dates()
    | st.datetimes()
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "example.toml").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def finished(folder: Path, *worth: float, **layer: Any) -> SearchStudy:
    """A study of the example whose trials, the start first, are worth so much."""
    tune = {"tune": {"search": ["lr", "heads"], "pruner": "none", "trials": 9}}
    run = load_run_config("configs/example.toml", layer, tune)
    folder.mkdir(exist_ok=True)
    study = SearchStudy(folder, search_space(run))
    study.prepare()
    for value in worth:
        trial = study.next_trial()
        trial.set_user_attr("metric", "recall@10")
        trial.report(value, 1)
        study.optuna.tell(trial, value)
    return study


def comment_of(text: str) -> str:
    """How the winner was found, its lines joined."""
    return " ".join(line.removeprefix("# ") for line in text.splitlines()[1:] if line.startswith("#"))


@given(table=st.dictionaries(keys, values, max_size=5))
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads("\n".join(toml_lines(table))) == table


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e-05, 1e22, date(2026, 1, 2), datetime(2026, 1, 2, 3)])
def test_values_with_a_spelling_of_their_own(value: Any) -> None:
    assert tomllib.loads("\n".join(toml_lines({"a": {"b": value}}))) == {"a": {"b": value}}


def test_the_file_loads_and_differs_from_the_source_in_the_winners_values_alone(home: Path) -> None:
    study = finished(home / "study", 0.1, 0.3, 0.2)
    path = winner_path(study.space.run, None)
    assert path == home / "configs" / "example-tuned.toml"
    write_winner(path, source_tables("configs/example.toml"), study)
    source, tuned = load_run_config("configs/example.toml"), load_run_config("configs/example-tuned.toml")
    changed = study.ranking()[0].changed
    assert changed
    assert tuned.training == {**source.training, **{key: changed[key] for key in ("lr",) if key in changed}}
    assert tuned.model == {**source.model, **{key: changed[key] for key in ("heads",) if key in changed}}
    same = {"model", "training"}
    assert tuned.model_dump(exclude=same) == source.model_dump(exclude=same)


def test_a_variable_is_kept_as_a_variable(home: Path) -> None:
    text = winner_text(home / "x.toml", source_tables("configs/example.toml"), finished(home / "study", 0.1))
    assert "${NO_SUCH_VARIABLE:-logs}" in text


def test_the_file_says_how_to_run_it_and_how_it_was_found(home: Path) -> None:
    study = finished(home / "study", 0.1, 0.3, 0.2)
    text = winner_text(home / "configs/example-tuned.toml", source_tables("configs/example.toml"), study)
    assert text.splitlines()[0] == "# python -m flows.train --config configs/example-tuned.toml"
    assert comment_of(text) == (
        "Found by flows.tune on validation alone: recall@10 0.3000 (trial 1, the start had 0.1000). "
        "3 trials (0 pruned) of up to 4 epochs, seed 0, over lr, heads."
    )
    assert all(len(line) <= 120 for line in text.splitlines())


def test_a_start_that_nothing_beat_is_written_as_it_is(home: Path) -> None:
    study = finished(home / "study", 0.3, 0.1, 0.3)
    text = winner_text(home / "x.toml", source_tables("configs/example.toml"), study)
    assert "(trial 0, the config that the search began with)" in comment_of(text)
    assert tomllib.loads(text) == tomllib.loads(SOURCE)


def test_what_the_command_line_laid_over_the_file_is_part_of_the_winner(home: Path) -> None:
    layer = {"training": {"patience": 7}, "model": {"architecture": "gat"}, "tune": {"trials": 9}}
    study = finished(home / "study", 0.3, **layer)
    found = tomllib.loads(winner_text(home / "x.toml", source_tables("configs/example.toml", layer), study))
    assert (found["training"]["patience"], found["model"]["architecture"]) == (7, "gat")
    assert found["tune"]["trials"] == 3, "how long this search took is nothing about the config"


def test_a_file_that_exists_is_replaced_only_by_force(home: Path) -> None:
    study = finished(home / "study", 0.3)
    path = home / "configs" / "example.toml"
    with pytest.raises(InputError, match=r"example.toml exists; give --output another name, or --force"):
        write_winner(path, source_tables("configs/example.toml"), study)
    assert path.read_text(encoding="utf-8") == SOURCE
    write_winner(path, source_tables("configs/example.toml"), study, force=True)
    assert path.read_text(encoding="utf-8") != SOURCE


def test_writing_the_same_winner_again_says_that_no_trial_is_left(home: Path) -> None:
    path, source = home / "configs" / "example-tuned.toml", source_tables("configs/example.toml")
    write_winner(path, source, finished(home / "study", 0.1, 0.3, 0.2))
    with pytest.raises(InputError, match=r"No trial is left to run: 3 of 3 are finished.*give --trials more than 3"):
        write_winner(path, source, finished(home / "study"), force=True)
    path.unlink()
    write_winner(path, source, finished(home / "study"))
    assert load_run_config(path).name == "example"


def test_a_folder_is_no_output(home: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give --output the name of a file"):
        refuse_existing(home, force=True)


def test_a_write_that_fails_leaves_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = finished(home / "study", 0.3)
    path = home / "configs" / "example.toml"

    def fail(partial: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match=r"example.toml \(No space left on device\); make room there.*trials are kept"):
        write_winner(path, source_tables("configs/example.toml"), study, force=True)
    assert path.read_text(encoding="utf-8") == SOURCE
    assert [found.name for found in path.parent.iterdir()] == [path.name]

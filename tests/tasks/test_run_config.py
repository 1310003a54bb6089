"""Keys that have moved to another table of a run's config still work, and the log says the new name."""

from __future__ import annotations

import pytest

from data.config import log_new_name
from tasks.run_config import MOVED_KEYS, load_run_config


@pytest.mark.parametrize(("old", "new"), MOVED_KEYS.items())
def test_a_moved_key_works_and_the_log_says_the_new_name(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    log_new_name.cache_clear()
    (old_table, old_key), (new_table, new_key) = old.split("."), new.split(".")
    value = 7 if old_key == "eval_k" else 0.2
    run = load_run_config(None, {old_table: {old_key: value}})
    assert getattr(getattr(run, new_table), new_key) == value
    assert f"The key '{old}' is now called '{new}'; please use the new name." in caplog.messages


def test_the_trainer_gets_the_k_of_the_evaluation() -> None:
    assert load_run_config(None, {"evaluation": {"k": 7}}).training == {"eval_k": 7}

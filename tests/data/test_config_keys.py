"""Keys of a config class: earlier names still work, and the log says the new one."""

from __future__ import annotations

from typing import ClassVar

import pytest

from data import config as config_module
from data.config import Config
from data.errors import InputError


class Inner(Config):
    renamed_keys: ClassVar = {"colour": "color"}

    color: str = "blue"
    size: int = 1


class Outer(Config):
    inner: Inner = Inner()


@pytest.fixture(autouse=True)
def nothing_logged_before() -> None:
    config_module.log_new_name.cache_clear()


SENTENCE = "The key 'colour' is now called 'color'; please use the new name."


def test_an_earlier_name_works_and_the_log_says_the_new_one_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        found = Inner.parse({"colour": "red", "size": 2}, "table")
        assert (found.model_dump(), found.model_fields_set) == ({"color": "red", "size": 2}, {"color", "size"})
    assert caplog.messages == [SENTENCE]


def test_an_earlier_name_works_in_a_nested_table_too(caplog: pytest.LogCaptureFixture) -> None:
    assert Outer.parse({"inner": {"colour": "red"}}, "table").inner.color == "red"
    assert caplog.messages == [SENTENCE]


def test_the_new_name_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert Inner.parse({"color": "red"}, "table").color == "red"
    assert caplog.messages == []


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(InputError) as refused:
        Inner.parse({"colour": "red", "color": "blue"}, "table")
    assert str(refused.value) == "table: 'colour' is the earlier name of 'color'; give only the new one."


def test_a_wrong_value_is_explained_under_the_new_name() -> None:
    with pytest.raises(InputError, match=r"^table\.color is 3: "):
        Inner.parse({"colour": 3}, "table")


def test_an_unknown_key_is_still_refused_and_the_earlier_name_is_not_offered() -> None:
    with pytest.raises(InputError) as refused:
        Inner.parse({"colur": "red"}, "table")
    assert str(refused.value) == "table has the unknown key 'colur'. Did you mean 'color'? Allowed: color, size."

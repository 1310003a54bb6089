"""data/search.py: a field says where to search, and a config file may say otherwise."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, PositiveInt

from data.config import Config
from data.errors import InputError
from data.search import Choices, Range, space_of, spaces


class Base(Config):
    rate: Annotated[float, Range(0.1, 1.0, log=True)] = Field(0.5, gt=0)
    plain: int = 3


class Derived(Base):
    depth: Annotated[PositiveInt, Choices(1, 2)] = 1


class Silent(Base):
    rate: float = 0.5


def test_a_class_searches_the_annotated_fields_of_its_own_and_of_its_bases() -> None:
    assert spaces(Derived) == {"rate": Range(0.1, 1.0, log=True), "depth": Choices(1, 2)}


def test_a_class_can_take_a_field_out_of_the_search() -> None:
    assert spaces(Silent) == {}


def test_the_annotation_changes_nothing_about_what_is_allowed() -> None:
    assert Derived.parse({"rate": 7.0, "depth": 9}, "table").depth == 9
    with pytest.raises(InputError, match=r"table.rate is -1: input should be greater than 0"):
        Derived.parse({"rate": -1}, "table")


def test_a_list_is_choices_and_a_table_a_range() -> None:
    assert space_of([64, 128], "x") == Choices(64, 128)
    assert space_of({"low": 1, "high": 4}, "x") == Range(1, 4)
    assert space_of({"low": 0.1, "high": 4, "log": True}, "x") == Range(0.1, 4, log=True)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (0.1, r"x is 0.1; give a list of choices, as \[0.1, 0.2\], or a range"),
        ([], r"x is \[\]; give a list"),
        ([[1]], "give a list"),
        ({"low": 1}, "give a list"),
        ({"low": 1, "hihg": 2}, "give a list"),
        ({"low": "a", "high": 2}, "give a list"),
        ({"low": True, "high": 2}, "give a list"),
        ({"low": 1, "high": 2, "log": 1}, "give a list"),
        ({"low": 2, "high": 1}, "x: low is 2, which has to be less than high, 1."),
        ({"low": 0, "high": 1, "log": True}, "x: low is 0, but a range with log = true begins above 0."),
    ],
)
def test_anything_else_is_refused(given: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        space_of(given, "x")

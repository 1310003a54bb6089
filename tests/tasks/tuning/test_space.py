"""Which keys a search varies: those that say over what, unless somebody says otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.search import Choices, Range
from models.base import ModelConfig
from models.gat import GATConfig
from models.lightgcn import LightGCNConfig
from models.mf import MFConfig
from tasks.run_config import load_run_config
from tasks.tuning.space import SearchedKey, SearchSpace, search_space
from trainers.advanced import AdvancedConfig, AdvancedTrainer
from trainers.config import TrainingConfig
from trainers.curriculum import CurriculumConfig

CLASSES = (TrainingConfig, AdvancedConfig, CurriculumConfig, ModelConfig, GATConfig, LightGCNConfig, MFConfig)
COUNTS = {"num_users": 1, "num_songs": 1}


class DeepConfig(AdvancedConfig):
    depth: Annotated[int, Choices(1, 2)] = 1
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.5


class DeepTrainer(AdvancedTrainer):
    """A custom trainer with keys to search, one of them named as one of the model's."""

    Config: ClassVar[type[TrainingConfig]] = DeepConfig


def space(search: list[str] | None = None, over: dict[str, Any] | None = None, **tables: Any) -> SearchSpace:
    return search_space(load_run_config(None, {"tune": {"search": search or [], "space": over or {}}}, tables))


def names(found: SearchSpace) -> set[str]:
    return {key.name for key in found.keys}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_value_of_a_declared_space_is_allowed(kind: type) -> None:
    given = COUNTS if issubclass(kind, ModelConfig) else {}
    for key, field in kind.model_fields.items():
        for said in field.metadata:
            values = said.values if isinstance(said, Choices) else ()
            ends = (said.low, said.high) if isinstance(said, Range) else ()
            for value in (*values, *ends):
                kind.parse({**given, key: value}, "table")


def test_only_keys_of_the_chosen_trainer_and_architecture_are_searched() -> None:
    common = {"lr", "batch_size", "temperature", "num_negatives", "l2", "lr_factor", "embedding_dim", "dropout"}
    assert names(space()) == common | {"num_layers", "heads"}
    assert names(space(model={"architecture": "lightgcn"})) == common | {"num_layers"}
    assert names(space(model={"architecture": "mf"})) == common


def test_a_trainer_of_ones_own_is_searched_by_annotating_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.names._registered", {"deep": DeepTrainer})
    found = space(trainer="deep")
    assert {"depth", "model.dropout", "training.dropout"} <= names(found)
    tables = found.tables({**found.start, "model.dropout": 0.2, "training.dropout": 0.7})
    assert (tables["model"]["dropout"], tables["training"]["dropout"]) == (0.2, 0.7)


def test_naming_keys_narrows_the_search() -> None:
    assert names(space(["lr", "heads"])) == {"lr", "heads"}


def test_the_config_file_may_say_over_what() -> None:
    found = space(["lr", "patience"], {"lr": {"low": 0.1, "high": 0.2}, "patience": [1, 9]}, training={"patience": 9})
    assert [key.space for key in found.keys] == [Range(0.1, 0.2), Choices(1, 9)]


def test_a_space_of_the_config_file_is_searched_without_naming_it() -> None:
    assert "patience" in names(space(over={"patience": [1, 9]}))


def test_the_value_that_the_config_has_is_always_a_choice() -> None:
    assert space(["heads"], model={"heads": 16, "embedding_dim": 64}).keys[0].space == Choices(1, 2, 4, 8, 16)
    assert space(["num_negatives"], training={"num_negatives": 1024}).keys[0].space == Choices(256, 1024, 4096)


def test_a_key_that_this_config_does_not_allow_is_left_out_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = space(training={"loss": "bpr"})
    assert "num_negatives" not in names(found)
    assert "num_negatives is not searched: training_config: num_negatives is for the softmax loss" in caplog.text


REFUSED: list[tuple[Callable[[], SearchSpace], str]] = [
    (lambda: space(["lrr"]), "have no key 'lrr'. Did you mean 'lr'?"),
    (lambda: space(["heads"], model={"architecture": "mf"}), "have no key 'heads'"),
    (lambda: space(over={"lrr": [1]}), "have no key 'lrr'. Did you mean 'lr'?"),
    (lambda: space(["patience"]), "'patience' has no search space; give tune.space.patience, a list of choices"),
    (lambda: space(["num_users"]), "have no key 'num_users'"),
    (lambda: space(["eval_k"], {"eval_k": [5, 10]}), "'eval_k' cannot be searched: it decides how or on what"),
    (lambda: space(over={"seed": [1, 2]}), "'seed' cannot be searched"),
    (lambda: space(over={"lr": 0.1}), "tune.space.lr is 0.1; give a list of choices"),
    (lambda: space(over={"lr": {"low": 2, "high": 1}}), "tune.space.lr: low is 2"),
    (lambda: space(over={"lr": [-1, -2]}), "'lr' cannot be searched in this config: training_config.lr is -1"),
    (lambda: space(["num_negatives"], training={"loss": "bpr"}), "num_negatives is for the softmax loss"),
    (lambda: space(["heads"], {"heads": [4]}), "'heads' cannot be searched in this config: its only value is 4"),
    (lambda: space(training={"lr": -1}), "training_config.lr is -1: input should be greater than 0"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_cannot_be_searched_is_said_in_a_sentence(make: Callable[[], SearchSpace], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert sentence in str(refused.value)


def test_values_that_do_not_go_together_are_known_as_such() -> None:
    found = space(["embedding_dim", "heads"], {"embedding_dim": [6, 32, 64]})
    assert "does not divide embedding_dim 6" in str(found.refusal({"embedding_dim": 6, "heads": 4}))
    assert found.refusal({"embedding_dim": 6, "heads": 2}) is None


@given(value=st.floats(1e-7, 1e-3))
def test_a_value_from_a_range_is_short(value: float) -> None:
    key = SearchedKey("l2", "training", "l2", Range(1e-7, 1e-3, log=True), is_int=False, start=1e-5)
    assert key.rounded(value) == pytest.approx(value, rel=5e-3)
    assert len(f"{key.rounded(value):g}".replace("-", "").replace(".", "").split("e")[0].strip("0")) <= 3


def test_choices_and_whole_numbers_are_used_as_they_are() -> None:
    choices = SearchedKey("l2", "training", "l2", Choices(0.12345), is_int=False, start=0.12345)
    whole = SearchedKey("batch_size", "training", "batch_size", Range(1, 9999), is_int=True, start=512)
    assert (choices.rounded(0.12345), whole.rounded(1234)) == (0.12345, 1234)


@pytest.mark.parametrize(("start", "nearest"), [(0.02, 0.02), (0.3, 0.1), (0.0, 0.001), (None, 0.001)])
def test_a_start_outside_its_range_is_stored_as_the_nearest_value(start: float | None, nearest: float) -> None:
    key = SearchedKey("lr", "training", "lr", Range(0.001, 0.1, log=True), is_int=False, start=start)
    assert key.nearest() == nearest

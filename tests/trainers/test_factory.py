"""Trainers by name, and what is said when the name or a key is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data.errors import InputError
from trainers import names
from trainers.advanced import AdvancedTrainer
from trainers.factory import (
    create_trainer,
    parse_training_config,
    register_trainer,
    trainer_class,
    trains_on_everything,
)
from trainers.names import TRAINERS, trainer_name, trainer_path


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(names, "_registered", {})


def test_a_registered_trainer_is_found_by_its_name(registered, model_config, training_config, tmp_path):
    @register_trainer("mine")
    class Mine(AdvancedTrainer):
        pass

    assert type(create_trainer("mine", model_config, training_config, tmp_path)) is Mine
    assert trainer_name(Mine) == "mine"
    assert trainer_path("mine").endswith("Mine")


def test_the_name_of_our_own_cannot_be_taken(registered):
    with pytest.raises(InputError, match=r"'simple' is taken by trainers\.simple:SimpleTrainer"):
        register_trainer("simple")


def test_a_registered_class_has_to_be_a_trainer(registered):
    register_trainer("number")(int)
    with pytest.raises(InputError, match="int is not a subclass of BaseTrainer"):
        trainer_class("number")


def test_a_class_anywhere_can_be_named():
    assert trainer_class("trainers.advanced:AdvancedTrainer") is AdvancedTrainer


@pytest.mark.parametrize(
    "path",
    ["trainers.adversarial:AdversarialTrainer", "trainers.meta:MetaTrainer", "trainers.multitask:MultiTaskTrainer"],
)
def test_a_trainer_of_a_package_can_be_named_by_the_package(path, model_config, training_config, tmp_path):
    trainer = create_trainer(path, model_config, training_config, tmp_path)
    assert type(trainer).__name__ == path.partition(":")[2]
    assert trainer_name(type(trainer)) in TRAINERS


def test_naming_a_trainer_imports_no_torch():
    code = (
        "import sys; from trainers.names import trainer_path; trainer_path('advanced'); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_only_the_simple_trainer_trains_on_everything():
    assert [name for name in TRAINERS if trains_on_everything(name)] == ["simple"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("advnced", "There is no trainer 'advnced'. Did you mean 'advanced'?"),
        ("no.such.module:Trainer", "'no.such.module:Trainer' cannot be imported"),
        ("trainers.simple:Simple", "'trainers.simple' has no 'Simple'"),
        ("data.config:Config", "Config is not a subclass of BaseTrainer"),
    ],
)
def test_a_wrong_name_is_explained(name, sentence):
    with pytest.raises(InputError) as error:
        trainer_class(name)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("trainer", "config", "sentence"),
    [
        ("simple", {"patience": 3}, "key 'patience', which belongs to 'advanced' and which"),
        ("advanced", {"patiense": 3}, "unknown key 'patiense'. Did you mean 'patience'?"),
        ("advanced", {"difficulty_schedule": [1.0]}, "which belongs to 'curriculum'"),
        ("advanced", {"val_ratio": 0.6, "test_ratio": 0.5}, "leave no train data"),
        ("advanced", {"lr": 0}, "training_config.lr is 0"),
        ("advanced", {"lr_factor": 1.5}, "training_config.lr_factor is 1.5"),
        ("simple", {"loss": "hinge"}, "training_config.loss is 'hinge'"),
        ("simple", {"loss": "bpr", "num_negatives": 5}, "bpr takes one negative a pair"),
        ("simple", {"device": "tpu"}, "training_config.device is 'tpu'"),
    ],
)
def test_a_wrong_key_or_value_is_explained(trainer, config, sentence):
    with pytest.raises(InputError) as error:
        parse_training_config(trainer, config)
    assert sentence in str(error.value)


def test_defaults_are_the_guides():
    config = parse_training_config("advanced", {})
    assert config.model_dump() == {
        "lr": 0.01,
        "batch_size": 512,
        "eval_k": 10,
        "num_eval_users": 100,
        "seed": 0,
        "device": "auto",
        "resume": True,
        "histograms": False,
        "warm_start": None,
        "loss": "softmax",
        "temperature": 0.1,
        "num_negatives": 1024,
        "l2": 1e-5,
        "calibration_ratio": 0.05,
        "num_neighbors": None,
        "monitor": None,
        "patience": 5,
        "val_ratio": 0.15,
        "test_ratio": 0.15,
        "use_scheduler": True,
        "min_lr": 1e-4,
        "lr_factor": 0.5,
        "lr_patience": 3,
    }


def test_an_installed_package_brings_a_name(install):
    install("swift", "swift = trainers.simple:SimpleTrainer")
    assert trainer_path("swift") == "trainers.simple:SimpleTrainer"
    assert trainer_class("swift").__name__ == "SimpleTrainer"


def test_no_package_takes_a_name_of_ours(install):
    install("rude", "advanced = trainers.simple:SimpleTrainer")
    assert trainer_class("advanced") is AdvancedTrainer


def test_a_name_that_two_packages_bring_is_nobodys(install):
    install("first", "swift = first:Trainer")
    install("second", "swift = second:Trainer")
    with pytest.raises(InputError, match=r"several installed packages, as .*:Trainer and .*:Trainer; name one of them"):
        trainer_path("swift")


def test_the_names_of_installed_packages_are_listed(install):
    install("swift", "swift = trainers.simple:SimpleTrainer")
    with pytest.raises(InputError, match="Did you mean 'swift'"):
        trainer_path("swft")

"""The modules of the chosen trainer, which are part of the train stage's key."""

from __future__ import annotations

import pytest

from data.code.digests import code_digests
from tasks.check import chosen_modules
from tasks.run_config import RunConfig
from trainers.factory import trainer_class


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("trainers.adversarial:AdversarialTrainer", "trainers.adversarial.adversarial_trainer"),
        ("trainers.federated:FederatedTrainer", "trainers.federated.federated_trainer"),
        ("trainers.meta:MetaTrainer", "trainers.meta.meta_trainer"),
        ("trainers.multitask:MultiTaskTrainer", "trainers.multitask.multitask_trainer"),
        ("trainers:OnlineTrainer", "trainers.online"),
        ("trainers.advanced:AdvancedTrainer", "trainers.advanced"),
    ],
)
def test_a_trainer_that_is_named_by_its_package_is_found_and_its_own_module_is_in_the_key(
    path: str, module: str
) -> None:
    found = trainer_class(path)
    assert (found.__module__, found.__name__) == (module, path.partition(":")[2])
    (of_the_trainer, _) = chosen_modules(RunConfig(trainer=path))
    assert of_the_trainer == module
    assert {module, "trainers.base"} <= set(code_digests((of_the_trainer,)))

"""Trainers: one loop, many ways to train. ``from trainers import create_trainer, AdvancedTrainer``."""

from data.lazy import lazy_names

_MODULES = {
    "create_trainer": "trainers.factory",
    "register_trainer": "trainers.factory",
    "BaseTrainer": "trainers.base",
    "SimpleTrainer": "trainers.simple",
    "AdvancedTrainer": "trainers.advanced",
    "CurriculumTrainer": "trainers.curriculum",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

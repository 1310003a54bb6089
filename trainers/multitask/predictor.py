"""Predicts the tasks with a trained model, in memory or from the folder it was saved in."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from data.config import unknown_name
from data.errors import InputError
from data.graph import NODE_TYPES
from models.base import Embeddings
from trainers.loop.model_files import CONFIG, HEADS, load_embeddings
from trainers.multitask.heads import TaskHeads


class TaskPredictor:
    """Predicts the tasks for any users and items, whether or not the log has such a listen.

    Args:
        heads: on the CPU.
        vectors: of all users and songs, on the CPU.
    """

    def __init__(self, heads: TaskHeads, vectors: Embeddings) -> None:
        self.heads, self.vectors = dict(heads.items()), vectors

    def predict(self, task: str, users: Tensor, items: Tensor) -> Tensor:
        """Return predictions (P,) in [0, 1] for users (P,) and songs (P,), or artists for the task ``artist``.

        Raises:
            InputError: for a task that was not learned.
        """
        if task not in self.heads:
            raise InputError(unknown_name("The model has no head for the task", task, self.heads))
        return self.heads[task].predicted(self.vectors, users, items)


def save_heads(heads: TaskHeads, folder: Path) -> None:
    """Write ``heads.safetensors``, parameters named ``task.parameter``, into the folder of a saved model."""
    save_file({name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}, folder / HEADS)


def load_predictor(folder: Path) -> TaskPredictor:
    """Return the predictor of a model that ``MultiTaskTrainer.save_model`` wrote.

    Raises:
        InputError: the folder holds no heads.
    """
    if not (folder / HEADS).is_file():
        raise InputError(f"{folder} holds no {HEADS}; train the model with the trainer 'multitask'.")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    model = config["model_config"]
    counts = {kind: model[f"num_{kind}s"] for kind in NODE_TYPES}
    heads = TaskHeads(config["training_config"]["tasks"], counts, model["embedding_dim"], Generator())
    heads.load_state_dict(load_file(folder / HEADS))
    return TaskPredictor(heads, load_embeddings(folder))

"""The inputs of a report: the folders that the stages of a run wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import InputError
from evaluation.record import EvaluationRecord

STAGE_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Sources:
    """The folders of one run; ``docs/report.md`` says what the report reads from each."""

    name: str
    """Name of the registered model."""
    listens: Path
    """Folder of the ingest stage: songs and their artists."""
    graph: Path
    """Folder of the graph stage: vocabularies, ``profile.json``, ``graph.pt``."""
    training_graph: Path
    """Folder of the split stage: ``training_graph.pt``."""
    model: Path
    """Folder of the train stage: ``config.json``, ``history.json``, ``results.json``."""
    evaluation: Path
    """Folder of the evaluate stage: ``metrics.json``, ``per_user.parquet``, ``lists.parquet``, and data for figures."""
    baselines: Mapping[str, Path] = field(default_factory=dict)
    """Name of each baseline to the folder of its evaluation."""
    registration: Path | None = None
    """Folder of the register stage: ``registration.json``, ``decision.json`` and the bundle."""
    seeds: Path | None = None
    """Folder of the seeds stage: ``seeds.json``."""
    synthetic: bool = False
    """True if the log was made up."""

    def stages(self) -> dict[str, Path]:
        """Return every folder by its name, from log to version."""
        start = {"listens": self.listens, "graph": self.graph, "training graph": self.training_graph}
        fitted = {f"baseline {name}": folder for name, folder in self.baselines.items()}
        end = {"seeds": self.seeds, "registration": self.registration}
        found = {**start, "model": self.model, **fitted, "evaluation": self.evaluation, **end}
        return {name: folder for name, folder in found.items() if folder is not None}

    def record(self) -> EvaluationRecord:
        """Read the numbers of the evaluation."""
        return EvaluationRecord.read(self.evaluation / "metrics.json")

    def in_sample(self) -> bool:
        """Return True if the model was trained on all listens."""
        return bool(read_json(self.model / "results.json", {}).get("trained_on_everything"))

    def graph_file(self) -> Path:
        """Return the file of the graph that the model was trained on."""
        return self.graph / "graph.pt" if self.in_sample() else self.training_graph / "training_graph.pt"

    def decision(self) -> dict[str, Any]:
        """Read the gate's decision; empty for a run that registered nothing."""
        return read_json(self.registration / "decision.json", {}) if self.registration else {}

    def registered(self) -> dict[str, Any]:
        """Read the name, version and MLflow run of the registered version; empty for a run that registered nothing."""
        return read_json(self.registration / "registration.json", {}) if self.registration else {}


def read_json(path: Path, default: Any) -> Any:
    """Read a JSON file; return ``default`` if there is no such file.

    Raises:
        InputError: the file is there, but cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return default
    except (OSError, ValueError):
        raise InputError(f"The report needs {path}, which is not readable JSON; run its stage again.") from None

"""Where a report reads from: the folders that the stages of a run left, of which some may be absent."""

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
    """The folders of one run; what the contents of each are is in ``docs/report.md``."""

    name: str
    """Name of the registered model."""
    listens: Path
    """The ingest stage's: songs and their artists."""
    graph: Path
    """The graph stage's: vocabularies, ``profile.json``, ``graph.pt``."""
    training_graph: Path
    """The split stage's: ``training_graph.pt``."""
    model: Path
    """The train stage's: ``config.json``, ``history.json``, ``results.json``."""
    evaluation: Path
    """The evaluate stage's: ``metrics.json``, ``per_user.parquet``, ``lists.parquet`` and what is drawn."""
    baselines: Mapping[str, Path] = field(default_factory=dict)
    """By name, what each baseline's own evaluation left."""
    registration: Path | None = None
    """The register stage's: ``registration.json``, ``decision.json`` and the bundle."""
    seeds: Path | None = None
    """The seeds stage's: ``seeds.json``."""
    synthetic: bool = False
    """Whether the log was made up."""

    def stages(self) -> dict[str, Path]:
        """Every folder by its name, from log to version."""
        start = {"listens": self.listens, "graph": self.graph, "training graph": self.training_graph}
        fitted = {f"baseline {name}": folder for name, folder in self.baselines.items()}
        end = {"seeds": self.seeds, "registration": self.registration}
        found = {**start, "model": self.model, **fitted, "evaluation": self.evaluation, **end}
        return {name: folder for name, folder in found.items() if folder is not None}

    def record(self) -> EvaluationRecord:
        """The numbers that the report is about."""
        return EvaluationRecord.read(self.evaluation / "metrics.json")

    def in_sample(self) -> bool:
        """Whether the model was trained on all listens, so that none is new to it."""
        return bool(read_json(self.model / "results.json", {}).get("trained_on_everything"))

    def graph_file(self) -> Path:
        """The graph that the model was trained on."""
        return self.graph / "graph.pt" if self.in_sample() else self.training_graph / "training_graph.pt"

    def decision(self) -> dict[str, Any]:
        """The gate's decision; empty for a run that registered nothing."""
        return read_json(self.registration / "decision.json", {}) if self.registration else {}

    def registered(self) -> dict[str, Any]:
        """Name, version and MLflow run of what was registered; empty for a run that registered nothing."""
        return read_json(self.registration / "registration.json", {}) if self.registration else {}


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds, or ``default`` where there is no such file.

    Raises:
        InputError: the file is there, but cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return default
    except (OSError, ValueError):
        raise InputError(f"The report needs {path}, which is not readable JSON; run its stage again.") from None

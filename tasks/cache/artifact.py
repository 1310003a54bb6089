"""A short table about each stage, shown in Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact

from data.config import flat
from tasks.cache.ref import Ref
from tasks.cache.result_store import read_stage_manifest


def publish_artifact(stage: str, key: str, ref: Ref) -> None:
    """Leave the table of a stage's result in Prefect."""
    manifest = read_stage_manifest(ref.value)
    create_markdown_artifact(key=f"stage-{stage}", markdown=stage_table(stage, key, ref, manifest))


def stage_table(stage: str, key: str, ref: Ref, manifest: Mapping[str, Any]) -> str:
    """Return Markdown: what the stage counted, its key, and why it ran, or that it was cached."""
    rows = {
        "state": "Cached" if ref.cached else f"Ran: {ref.why}",
        "key": f"`{key}`",
        "folder": f"`{ref.path}`",
        "seconds when it ran": manifest["seconds"],
        "MiB at most": manifest.get("peak_mib", ""),
        **flat(manifest["counts"], separator=" "),
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join([f"### {stage}", "", "| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = f"{value:.4f}" if isinstance(value, float) else text
    return text.replace("|", "\\|").replace("\n", " ")

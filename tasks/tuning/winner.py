"""Writes the winner of a search as a config file: the keys of the source with the winner's values, ready to run."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.project import project_root
from tasks.run_config import RunConfig, Table, merged_tables
from tasks.tuning.study import SearchStudy

COMMENT_WIDTH = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def winner_path(run: RunConfig, output: str | None) -> Path:
    """Return the file for the winner: ``output``, from the project's root, or ``configs/<name>-tuned.toml``."""
    return project_root() / Path(output or f"configs/{run.name}-tuned.toml").expanduser()


def refuse_existing(path: Path, force: bool) -> None:
    """Raise InputError if the file exists and may not be replaced."""
    if path.is_dir():
        raise InputError(f"The output {path} is a folder; give --output the name of a file, ending in .toml.")
    if path.exists() and not force:
        raise InputError(f"The output {path} exists; give --output another name, or --force to replace it.")


def write_winner(path: Path, source: Table, study: SearchStudy, force: bool = False) -> None:
    """Write the best complete trial as a config file; a reader sees the old file or the new one.

    Args:
        source: the tables that the search began with, see ``source_tables``.

    Raises:
        InputError: the file exists and may not be replaced; it holds this winner of as many trials already; or it
            cannot be written.
    """
    refuse_existing(path, force)
    text, count = winner_text(path, source, study), len(study.results())
    if path.exists() and path.read_text(encoding="utf-8") == text:
        raise InputError(
            f"No trial is left to run: {count} of {count} are finished, and {path} holds the winner; "
            f"give --trials more than {count}, or search other keys."
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"The winner cannot be written to {path} ({error.strerror or error}); make room there or give --output "
            "another name. All trials are kept."
        ) from error


def source_tables(config: str | None, *layers: Table | None, events: str | list[str] | None = None) -> Table:
    """Return the config file with the layers over it; of ``[tune]`` only the file's own keys are kept."""
    return {**merged_tables(config, *layers, events=events), "tune": merged_tables(config).get("tune", {})}


def winner_text(path: Path, source: Table, study: SearchStudy) -> str:
    """Return the text of the file: the command that runs it, how it was found, and the keys."""
    shown = path.relative_to(project_root()) if path.is_relative_to(project_root()) else path
    comments = [line for sentence in _how_it_was_found(study) for line in textwrap.wrap(sentence, COMMENT_WIDTH)]
    lines = [f"# python -m flows.train --config {shown}", *(f"# {line}" for line in comments)]
    return "\n".join([*lines, "", *toml_lines(_tuned(source, study))]) + "\n"


def _tuned(source: Table, study: SearchStudy) -> Table:
    """Return the source with the values of the winner that differ from the start."""
    found = {**source, "model": dict(source.get("model", {})), "training": dict(source.get("training", {}))}
    changed = study.ranking()[0].changed
    for key in study.space.keys:
        if key.name in changed:
            found[key.table][key.key] = changed[key.name]
    return {name: value for name, value in found.items() if value != {}}


def _how_it_was_found(study: SearchStudy) -> list[str]:
    results, winner = study.results(), study.ranking()[0]
    num_pruned = sum(result.state == "pruned" for result in results)
    start = next(result.value for result in results if result.is_start)
    compared = "the config that the search began with" if winner.is_start else f"the start had {start:.4f}"
    keys = ", ".join(key.name for key in study.space.keys)
    return [
        f"Found by flows.tune on validation alone: {winner.metric} {winner.value:.4f} (trial {winner.number}, "
        f"{compared}).",
        f"{len(results)} trials ({num_pruned} pruned) of up to {study.num_epochs} epochs, seed {study.seed}, "
        f"over {keys}.",
    ]


def toml_lines(table: Mapping[str, Any], path: Sequence[str] = ()) -> list[str]:
    """Return a table as TOML: its own keys, then the tables in it under their headings; None is left out."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping) and value is not None}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    heading = [f"[{'.'.join(map(_key, path))}]"] if path and (plain or not tables) else []
    lines = [*heading, *(f"{_key(key)} = {_toml(value)}" for key, value in plain.items())]
    for key, value in tables.items():
        below = toml_lines(value, (*path, key))
        lines += [*([""] if lines else []), *below]
    return lines


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def _text(text: str) -> str:
    """Return a TOML string: JSON has the same escapes, but leaves the delete character, which TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")

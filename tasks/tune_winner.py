"""The winner of a search as a config file: the source's keys with the winner's values, ready to run."""

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
from tasks.tune_space import SearchSpace, Values
from tasks.tune_study import SearchStudy

COMMENT_WIDTH = 100

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def winner_path(run: RunConfig, output: str | None) -> Path:
    """Where the winner goes: as given, relative to the project's root, or ``configs/<name>-tuned.toml``."""
    return project_root() / Path(output or f"configs/{run.name}-tuned.toml").expanduser()


def refuse_existing(path: Path, force: bool) -> None:
    """Raise InputError where writing ``path`` would replace a file that nobody said may be replaced."""
    if path.is_dir():
        raise InputError(f"The output {path} is a folder; give --output the name of a file, ending in .toml.")
    if path.exists() and not force:
        raise InputError(f"The output {path} exists; give --output another name, or --force to replace it.")


def write_winner(path: Path, source: Table, study: SearchStudy, force: bool = False) -> None:
    """Write the best complete trial as a config file, in one move.

    Args:
        source: the tables that the search began with, see ``source_tables``.

    Raises:
        InputError: the file exists, and it was not said that it may be replaced; or it holds just this winner, and no
            trial was left to run; or it cannot be written.
    """
    refuse_existing(path, force)
    text = winner_text(path, source, study)
    if not study.ran and path.exists() and path.read_text(encoding="utf-8") == text:
        count = len(study.tried())
        raise InputError(
            f"No trial is left to run: {count} of {count} are finished, and {path} holds the winner; "
            f"give --trials more than {count}, or search other keys."
        )
    try:
        _replace(path, text)
    except OSError as error:
        raise InputError(
            f"The winner cannot be written to {path} ({error.strerror or error}); make room there or give --output "
            "another name. All trials are kept."
        ) from error


def _replace(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` in one move: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def source_tables(config: str | None, *layers: Table | None, events: str | list[str] | None = None) -> Table:
    """The file with what was laid over it, but for ``[tune]``, of which only the file's own keys are worth keeping."""
    return {**merged_tables(config, *layers, events=events), "tune": merged_tables(config).get("tune", {})}


def winner_text(path: Path, source: Table, study: SearchStudy) -> str:
    """The file: the command that runs it, how it was found, and the keys."""
    winner = study.ranking()[0]
    shown = path.relative_to(project_root()) if path.is_relative_to(project_root()) else path
    told = [line for sentence in _how_it_was_found(study) for line in textwrap.wrap(sentence, COMMENT_WIDTH)]
    lines = [f"# python -m flows.train --config {shown}", *(f"# {line}" for line in told)]
    return "\n".join([*lines, "", *toml_lines(tuned(source, study.space, winner.values))]) + "\n"


def tuned(source: Table, space: SearchSpace, values: Values) -> Table:
    """The source with the values in it that differ from its own."""
    found = {**source, "model": dict(source.get("model", {})), "training": dict(source.get("training", {}))}
    for key in space.keys:
        if values[key.name] != key.start:
            found[key.table][key.key] = values[key.name]
    return {name: value for name, value in found.items() if value != {}}


def _how_it_was_found(study: SearchStudy) -> list[str]:
    tried, winner = study.tried(), study.ranking()[0]
    pruned = sum(one.state == "pruned" for one in tried)
    start = next((one.value for one in tried if one.is_start), None)
    told = "the config that the search began with" if winner.is_start else f"the start had {start:.4f}"
    beside = f"trial {winner.number}, {told}"
    keys = ", ".join(key.name for key in study.space.keys)
    return [
        f"Found by flows.tune on validation alone: {winner.metric} {winner.value:.4f} ({beside}).",
        f"{len(tried)} trials ({pruned} pruned) of up to {study.num_epochs} epochs, seed {study.seed}, over {keys}.",
    ]


def toml_lines(table: Mapping[str, Any], path: Sequence[str] = ()) -> list[str]:
    """A table as TOML: its own keys, then the tables in it under their headings; None is left out."""
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
    """JSON's escapes are TOML's, but for the delete character, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")

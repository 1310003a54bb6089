"""A stage's key: a digest of everything that can change its result, and what changed since the last one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from data.code.digests import code_digests
from data.config import flat
from data.digest import sha256_of_json

LIBRARIES = ("torch", "torch-geometric")

SHA256_DIGITS = 64

KeyParts = dict[str, Any]


def key_parts(
    stage: str, stage_version: int, inputs: Mapping[str, str], config: Mapping[str, Any], code: Iterable[str]
) -> KeyParts:
    """Return the flat parts of the key, each with a name, so that a person can read what changed.

    Args:
        inputs: SHA-256 by the input's name.
        config: plain values; nested tables become dotted names.
        code: entry modules; everything of the project that they import counts.
    """
    parts = {
        "version of the stage": f"{stage} {stage_version}",
        **{f"input {name}": sha256 for name, sha256 in inputs.items()},
        **{f"config {name}": value for name, value in flat(config).items()},
        **{f"code {module}": digest for module, digest in code_digests(code).items()},
        **{f"library {name}": version(name) for name in LIBRARIES},
    }
    return json.loads(json.dumps(parts, default=str))  # as they will be read back, so that they can be compared


def key_of(parts: KeyParts) -> str:
    """Return 32 hexadecimal digits: half a SHA-256, short in paths and long enough against collisions."""
    return sha256_of_json(parts)[:32]


def what_changed(before: KeyParts, now: KeyParts) -> list[str]:
    """Return the parts that differ, for a person to read: values of configs, names of inputs and code."""
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return [_change(name, before, now) for name in names]


def in_short(changes: list[str]) -> str:
    """Return one line: all settings, and the first of many inputs or modules with the number of the others."""
    modules = [change for change in changes if change.startswith("code ")]
    inputs = [change for change in changes if change.startswith("input ")]
    rest = [change for change in changes if change not in (*modules, *inputs)]
    return "; ".join([*rest, *_first_of(inputs, 2), *_first_of(modules, 1)])


def _first_of(changes: list[str], most: int) -> list[str]:
    """Return all changes, or the first and the number of the others if there are more than ``most``."""
    return changes if len(changes) <= most else [f"{changes[0]} and {len(changes) - 1} more"]


def _change(name: str, before: KeyParts, now: KeyParts) -> str:
    values = [before.get(name, "not set"), now.get(name, "not set")]
    if not name.startswith(("config", "library", "version")) or any(_is_digest(value) for value in values):
        return name
    return f"{name}: {values[0]} → {values[1]}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == SHA256_DIGITS

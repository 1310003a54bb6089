"""The gate: whether a new model, the challenger, takes the champion's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import promotion
from registry.decision import Decision, GateConfig

COMPARED_FILES = (
    "manifest.json",
    "metrics.json",
    "per_user.parquet",
    "users.parquet",
    "songs.parquet",
    "artists.parquet",
    "song_artists.parquet",
    "seen.parquet",
    "embeddings.safetensors",
    "twin_embeddings.safetensors",
    "seeds.json",
    "profile.json",
)
"""The files of a champion's bundle that a decision reads, as far as its manifest names them."""

DEFAULTS = GateConfig()


def decide(
    bundle: Path,
    champion: int | None = None,
    champion_bundle: Path | None = None,
    recent: Sequence[Mapping[str, Any]] = (),
    config: GateConfig = DEFAULTS,
) -> Decision:
    """Compare a bundle with popularity and with the champion.

    Args:
        bundle: a verified bundle.
        champion: the champion's version, if there is one.
        champion_bundle: a folder with ``COMPARED_FILES`` of its bundle, as far as it has them; they are verified here.
        recent: the profiles (``profile.json``) of the last versions, newest first.
        config: margins and limits.
    """
    interim = promotion.decide(bundle, champion, champion_bundle)
    return Decision.model_validate(interim.model_dump())

"""Configuration of ingest; separate from the reading itself, so that a cached run does not load DuckDB."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from data.config import Config, unknown_name
from data.cutoff import CutConfig
from data.events.schema import EVENTS


class IngestConfig(Config):
    """Where the log is, the names of its columns, and which events are used."""

    events: tuple[str, ...] = ()
    """Files, folders or globs, found when the run starts; a single one may be a plain string."""
    track_artists: tuple[str, ...] = ()
    """A separate table of ``track_id`` and ``artist_id`` (and ``artist_name``, ``track_name``), if there is one."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Canonical name = the log's own name, for events: ``{track_id = "song"}``."""
    track_artists_columns: dict[str, str] = Field(default_factory=dict)
    """The same for the track_artists table."""
    min_ms_played: int = Field(0, ge=0)
    """Events shorter than this many milliseconds are dropped; events of unknown length are kept."""
    since: datetime | None = None
    """Events before this time are dropped (a date or a timestamp; UTC if it has no zone)."""
    until: datetime | None = None
    """Events at or after this time are dropped (a date or a timestamp; UTC if it has no zone)."""
    min_user_songs: int = Field(0, ge=0)
    """Users with fewer distinct songs are dropped, in turn with ``min_song_users``, until both conditions hold."""
    min_song_users: int = Field(0, ge=0)
    """Songs with fewer distinct users are dropped, in turn with ``min_user_songs``, until both conditions hold."""
    cut: CutConfig | None = None
    """The cut of a temporal split. The two filters above then count only listens before validation."""
    max_rejected: float = Field(0.01, ge=0, le=1)
    """The run fails if a larger share of the rows breaks the schema."""
    memory_limit: str = Field("4GB", pattern=r"^\d+(\.\d+)?\s?([KMGT]i?B)$")
    """Memory for aggregation; data that does not fit spills to disk."""

    @field_validator("events", "track_artists", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if not given:
            return ()
        return (str(given),) if isinstance(given, (str, Path)) else tuple(map(str, given))

    @field_validator("columns", "track_artists_columns")
    @classmethod
    def _canonical(cls, given: dict[str, str]) -> dict[str, str]:
        allowed = [field.name for field in EVENTS]
        unknown = [name for name in given if name not in allowed]
        if unknown:
            raise ValueError(unknown_name("this is no canonical column:", unknown[0], allowed))
        return given

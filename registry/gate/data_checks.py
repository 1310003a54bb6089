"""Checks of the challenger's log against the logs of the last versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from registry.gate.gate_config import DataCheck, GateConfig

VOLUMES = ("plays", "pairs", "users")
REJECTS = "rejected_share"
LAST_VERSIONS = 5

Profile = Mapping[str, Any]


def check_data(
    profile: Profile, recent: Sequence[Profile], songs: tuple[Path, Path] | None, config: GateConfig
) -> tuple[DataCheck, ...]:
    """Compare a log with those before it; without an earlier log every check passes.

    Args:
        profile: contents of ``profile.json``, see ``data.profile``.
        recent: those of the last versions, newest first; five count.
        songs: the challenger's and the champion's songs.parquet.
        config: the limits.
    """
    last = recent[:LAST_VERSIONS]
    before = {name: [one[name] for one in last if one.get(name) is not None] for name in (*VOLUMES, REJECTS)}
    known = {name: values for name, values in before.items() if values and profile.get(name) is not None}
    volumes = [_volume(name, profile[name], known[name], config) for name in VOLUMES if name in known]
    rejects = [_rejects(profile[REJECTS], known[REJECTS], config)] if REJECTS in known else []
    found = (*volumes, *rejects, *(_songs(*songs, config) if songs else ()))
    return found or (DataCheck(name="volume", passed=True, says="there is no earlier log to compare with"),)


def _volume(name: str, now: int, before: Sequence[int], config: GateConfig) -> DataCheck:
    """Compare a number with the median of the last ones, which one unusual night does not move."""
    usual = median(before)
    low, high = usual * (1 - config.max_volume_loss), usual * (1 + config.max_volume_gain)
    says = f"{name} {now:,} against {usual:,.0f} in the last {len(before)} versions, allowed {low:,.0f} to {high:,.0f}"
    return DataCheck(name=name, passed=low <= now <= high, says=says)


def _rejects(now: float, before: Sequence[float], config: GateConfig) -> DataCheck:
    usual = median(before)
    high = usual + config.max_rejected_gain
    says = f"rejected rows {now:.2%} against {usual:.2%} in the last {len(before)} versions, allowed up to {high:.2%}"
    return DataCheck(name="rejects", passed=now <= high, says=says)


def _songs(challenger: Path, champion: Path, config: GateConfig) -> tuple[DataCheck, DataCheck]:
    now, before = (
        pq.read_table(path, columns=["track_id"])["track_id"].cast(pa.string()) for path in (challenger, champion)
    )
    new, lost = _missing(now, before), _missing(before, now)
    return (
        _share("new songs", new, len(now), config.max_new_songs, "are unknown to the champion"),
        _share("lost songs", lost, len(before), config.max_lost_songs, "of the champion are gone"),
    )


def _share(name: str, number: int, total: int, limit: float, what: str) -> DataCheck:
    share = number / max(1, total)
    says = f"{number:,} of {total:,} songs ({share:.1%}) {what}, allowed up to {limit:.0%}"
    return DataCheck(name=name, passed=share <= limit, says=says)


def _missing(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> int:
    return len(ids) - int(pc.sum(pc.is_in(ids, value_set=known)).as_py() or 0)

"""Names of songs and artists for people to read, from the vocabularies next to a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def names_of(vocabulary: Path, kind: Literal["track", "artist"], rows: Sequence[int]) -> list[str]:
    """Return the names of some rows of ``songs.parquet`` or ``artists.parquet``, or the id if there is no name."""
    table = pq.read_table(vocabulary).take(pa.array(rows, pa.int64()))
    ids, name = table[f"{kind}_id"], f"{kind}_name"
    found: list[str] = (pc.coalesce(table[name], ids) if name in table.column_names else ids).to_pylist()
    return found


def artists_by_song(songs: Iterable[int], artists: Iterable[str]) -> dict[int, str]:
    """Return the artists of each song, joined by commas, from pairs of a song and the name of one of its artists."""
    found: dict[int, list[str]] = {}
    for song, artist in zip(songs, artists, strict=True):
        found.setdefault(song, []).append(artist)
    return {song: ", ".join(names) for song, names in found.items()}

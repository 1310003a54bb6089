"""Names for the songs and artists of the synthetic log."""

from __future__ import annotations

import numpy as np

# fmt: off
ADJECTIVES = (
    "Amber", "Bitter", "Blue", "Broken", "Crimson", "Distant", "Electric", "Empty", "Endless", "Faded",
    "Frozen", "Gentle", "Golden", "Hidden", "Hollow", "Lonely", "Lost", "Midnight", "Neon", "Northern",
    "Paper", "Quiet", "Restless", "Silver", "Sleeping", "Slow", "Velvet", "Wandering", "Wild", "Winter",
)
NOUNS = (
    "Avenue", "Bridge", "Candle", "Carousel", "Cathedral", "City", "Comet", "Desert", "Engine", "Feather",
    "Field", "Garden", "Harbour", "Highway", "Horizon", "Lantern", "Letter", "Machine", "Mirror", "Mountain",
    "Ocean", "Parade", "River", "Satellite", "Shadow", "Station", "Summer", "Tiger", "Train", "Window",
)
# fmt: on
SONG_FORMS = ("{} {}", "The {} {}", "{} {} Tonight", "Under the {} {}", "My {} {}", "{} {} (Live)")


def artist_names(rng: np.random.Generator, count: int) -> list[str]:
    """Return distinct plural names; if the words run out, a number is appended."""
    combinations = len(ADJECTIVES) * len(NOUNS)
    place = rng.permutation(combinations)[np.arange(count) % combinations]
    rounds = np.arange(count) // combinations
    return [f"The {_words(at)}s{f' {again + 1}' if again else ''}" for at, again in zip(place, rounds, strict=True)]


def song_names(rng: np.random.Generator, count: int) -> list[str]:
    """Return song names; as in reality, some are equal."""
    place = rng.integers(len(ADJECTIVES) * len(NOUNS), size=count)
    forms = rng.integers(len(SONG_FORMS), size=count)
    return [SONG_FORMS[form].format(*_words(at).split()) for at, form in zip(place, forms, strict=True)]


def _words(place: int) -> str:
    return f"{ADJECTIVES[place // len(NOUNS)]} {NOUNS[place % len(NOUNS)]}"

"""The terms of a score, against the scores that they explain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from models.item_paths.explanation import explain_score
from tests.models.item_paths.test_local_scorer import World, larger_world, whenever_compiled, worlds


@given(worlds())
@whenever_compiled
def test_the_terms_add_up_to_the_score(world: World) -> None:
    local = world.compiled()
    scores = world.scores(local)
    for user in range(world.users):
        for song in range(world.songs):
            found = explain_score(local, user, song, float(world.similarity[user, song]))
            # terms of opposite signs may be much larger than their sum
            size = abs(found.vectors) + abs(found.popularity) + np.abs(found.by_listeners).sum()
            assert found.score == pytest.approx(
                scores[user, song], abs=1e-4 * (1 + size + np.abs(found.by_artists).sum())
            )


def test_only_songs_of_the_user_that_lead_there_are_named_and_the_first_adds_most() -> None:
    world = larger_world()
    local = world.compiled()
    for user in range(5):
        found = explain_score(local, user, song=7, similarity=0.5)
        added = found.by_listeners + found.by_artists
        assert {(user, int(song)) for song in found.songs} <= world.listens
        assert (np.diff(added) <= 0).all()
        assert ((found.by_listeners != 0) | (found.by_artists != 0)).all()

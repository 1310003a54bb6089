"""Loads a registered version by the name of its model."""

from __future__ import annotations

from registry.backend.client import RegistryClient
from registry.recommender import Recommender


def load(version: int | str = "champion", name: str = "songgraph", uri: str | None = None) -> Recommender:
    """Load a registered version, verified file by file before it is used.

    Args:
        version: a version's number, or an alias.
        name: the registered model's name.
        uri: the registry's address, see ``registry.backend.location.resolve_uri``.

    Raises:
        InputError: there is no such registry, model, version or alias (those that exist are listed), or the bundle
            is damaged, incomplete or another version's.
    """
    client = RegistryClient(uri)
    found = client.get(name, version)
    with client.bundles.folder(found) as folder:
        recommender = Recommender.load(folder)
    found.check(recommender.manifest)
    return recommender

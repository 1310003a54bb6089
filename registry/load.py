"""From a name to a model that answers."""

from __future__ import annotations

from data.errors import InputError
from registry.recommender import Recommender
from registry.store import DIGEST_TAG, Store


def load(version: int | str = "champion", name: str = "songgraph", uri: str | None = None) -> Recommender:
    """Load a registered version, verified file by file before it is used.

    Args:
        version: a version's number, or an alias.
        name: the registered model's name.
        uri: the registry's address, see ``registry.location.resolve_uri``.

    Raises:
        InputError: there is no such registry, model, version or alias (what there is, is listed), or the bundle is
            damaged, incomplete or another version's.
    """
    store = Store(uri)
    found = store.get(name, version)
    with store.files(found) as folder:
        recommender = Recommender.load(folder)
    if recommender.manifest.digest != found.tags.get(DIGEST_TAG):
        raise InputError(
            f"The bundle of version {found.version} of '{name}' is another version's: its digest is not the one that "
            "was registered. Restore the folder, or load another version."
        )
    return recommender

"""Names, in a bundle, of the files of the evaluated model, if another model was published.

A model that is trained once more on all listens (``refit``) is published, and cannot be evaluated. Its bundle then also
holds the evaluated model, which was trained without the held-out listens.
"""

from __future__ import annotations

from collections.abc import Container

PREFIX = "evaluated_"
OLD_PREFIX = "twin_"
"""The prefix in bundles of earlier releases."""


def evaluated_file(name: str, present: Container[str]) -> str | None:
    """Return the name under which a bundle holds a file of the evaluated model; None if it holds none.

    Args:
        name: the file's name for a published model, such as ``model.safetensors``.
        present: the names of the bundle's files.
    """
    return next((prefix + name for prefix in (PREFIX, OLD_PREFIX) if prefix + name in present), None)

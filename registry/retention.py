"""Deletes old versions, never a champion, so that a registry that grows every night does not fill the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from data.errors import InputError
from registry.audit_log import FORCED_TAG, Entry, carry_out, decision_of, reconcile, records, whoami
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import locked
from registry.backend.version import DIGEST_TAG, Version
from registry.champion import champions

MS_PER_DAY = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Removal:
    """A version that is to be deleted, and what that frees."""

    version: Version
    num_bytes: int


def removable(store: RegistryClient, name: str, keep: int, older_than_days: float) -> list[Removal]:
    """The versions that neither count nor age keep, oldest first.

    Kept are the newest ``keep`` versions, those that are younger, all that have an alias, all that are or ever were
    champion, and those of which a record is still open.

    Raises:
        InputError: there is no such model, or ``keep`` or the age is too small.
    """
    if keep < 1:
        raise InputError(f"--keep is {keep}; keep at least the newest version.")
    if older_than_days < 0:
        raise InputError(f"--older-than is {older_than_days:g}; give a number of days from 0.")
    versions, kept = store.versions(name), _protected(store, name)
    oldest_ms = time.time() * 1000 - older_than_days * MS_PER_DAY
    chosen = [entry for entry in versions[:-keep] if entry.version not in kept and entry.created_ms < oldest_ms]
    return [Removal(version, sum(store.bundles.sizes(version).values())) for version in chosen]


def prune(store: RegistryClient, name: str, keep: int, older_than_days: float) -> list[Removal]:
    """Delete the removable versions, each with a record; files that a killed deletion left are swept first.

    A version leaves the registry before its files do, so that what can be loaded is always whole.

    Raises:
        InputError: as ``removable``, or the registry cannot be written.
    """
    with locked(store, name) as lease:
        reconcile(store, name)
        chosen = removable(store, name, keep, older_than_days)
        for removal in chosen:
            carry_out(store, removal.version, _entry(store, removal, keep, older_than_days), lease)
    return chosen


def _protected(store: RegistryClient, name: str) -> set[int]:
    past = records(store, name)
    unfinished = {record.version for record in past if record.state == "intent" and record.version is not None}
    promoted = {version.version for version in store.versions(name) if _says_promoted(version)}
    return champions(past) | promoted | unfinished | set(store.aliases(name).values())


def _says_promoted(version: Version) -> bool:
    """Whether the version itself says so: its champion's time may be older than the records."""
    decision = decision_of(version)
    return FORCED_TAG in version.tags or (decision is not None and decision.outcome == "promote")


def _entry(store: RegistryClient, removal: Removal, keep: int, older_than_days: float) -> Entry:
    version = removal.version
    champion = store.aliases(version.name).get(CHAMPION)
    why = f"Never a champion, not among the newest {keep} and older than {older_than_days:g} days."
    digest = version.tags.get(DIGEST_TAG, "")
    return Entry("deletion", version.version, champion, champion, why, whoami(), digest, run=version.run_id)

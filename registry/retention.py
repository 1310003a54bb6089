"""Deletes old versions, never a champion, so that a registry that grows every night does not fill the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from data.errors import InputError
from registry.audit_log import FORCED_TAG, Change, carry_out, decision_of, reconcile, records, whoami
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import locked
from registry.backend.version import DIGEST_TAG, Version
from registry.champion import champions

MS_PER_DAY = 24 * 60 * 60 * 1000


@dataclass(frozen=True)
class Removal:
    """A version to delete, and the bytes that this frees."""

    version: Version
    num_bytes: int


def removable(client: RegistryClient, name: str, keep: int, older_than_days: float) -> list[Removal]:
    """Return the versions that may be deleted, oldest first.

    Kept are the newest ``keep`` versions, those that are younger, all that have an alias, all that are or ever were
    champion, and those with an open record.

    Raises:
        InputError: there is no such model, or ``keep`` or the age is too small.
    """
    if keep < 1:
        raise InputError(f"--keep is {keep}; keep at least the newest version.")
    if older_than_days < 0:
        raise InputError(f"--older-than is {older_than_days:g}; give a number of days from 0.")
    versions, kept = client.versions(name), _protected(client, name)
    oldest_ms = time.time() * 1000 - older_than_days * MS_PER_DAY
    chosen = [version for version in versions[:-keep] if version.version not in kept and version.created_ms < oldest_ms]
    return [Removal(version, sum(client.bundles.sizes(version).values())) for version in chosen]


def prune(client: RegistryClient, name: str, keep: int, older_than_days: float) -> list[Removal]:
    """Delete the removable versions, each with a record, and first the files that a killed deletion left.

    A version leaves the registry before its files are deleted, so that every version in the registry is whole.

    Raises:
        InputError: as ``removable``, or the registry cannot be written.
    """
    with locked(client, name) as lease:
        reconcile(client, name)
        chosen = removable(client, name, keep, older_than_days)
        why = f"Never a champion, not among the newest {keep} and older than {older_than_days:g} days."
        for version in (removal.version for removal in chosen):
            champion = client.aliases(name).get(CHAMPION)
            digest = version.tags.get(DIGEST_TAG, "")
            change = Change("deletion", version.version, champion, champion, why, whoami(), digest, run=version.run_id)
            carry_out(client, version, change, lease)
    return chosen


def _protected(client: RegistryClient, name: str) -> set[int]:
    past = records(client, name)
    unfinished = {record.version for record in past if record.state == "intent" and record.version is not None}
    promoted = {version.version for version in client.versions(name) if _was_promoted(version)}
    return champions(past) | promoted | unfinished | set(client.aliases(name).values())


def _was_promoted(version: Version) -> bool:
    """Return if the version's own tags say that it was promoted, which may be older than the records."""
    decision = decision_of(version)
    return FORCED_TAG in version.tags or (decision is not None and decision.outcome == "promote")

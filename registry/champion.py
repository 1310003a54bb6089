"""The champion: which it is, which it was, and how a person changes it; every move is a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data.errors import InputError
from registry.audit_log import (
    MAX_WORDS,
    Entry,
    Kind,
    Record,
    carry_out,
    decision_of,
    line_of_champions,
    reconcile,
    records,
    whoami,
)
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import locked
from registry.backend.version import DIGEST_TAG, Version
from registry.bundle.manifest import Manifest, verify_bundle

__all__ = ["champions", "promote", "records", "rollback", "verified"]


def promote(store: RegistryClient, name: str, which: int | str, why: str, force: str | None = None) -> Record:
    """Make a version champion, because a person says so.

    Args:
        store: the registry.
        name: the registered model's name.
        which: the version's number, or an alias.
        why: the reason, which is kept for ever.
        force: the reason for overruling the gate: needed where it rejected the version or never decided about it,
            and where the version's numbers are in-sample.

    Raises:
        InputError: the version does not exist, is champion already, is damaged, or would have to be forced.
    """
    with locked(store, name) as lease:
        reconcile(store, name)
        version, champion = store.get(name, which), store.aliases(name).get(CHAMPION)
        if version.version == champion:
            raise InputError(f"Version {champion} of '{name}' is the champion already.")
        manifest = verified(store, version)
        obstacle = _obstacle(version, manifest)
        if obstacle and not force:
            raise InputError(
                f"Version {version.version} of '{name}' is not promoted: {obstacle}. Give --force \"reason\" to "
                "promote it nevertheless; that stays on record."
            )
        entry = _by_person("promotion", version, champion, why)
        return carry_out(store, version, _forced(entry, force) if obstacle and force else entry, lease)


def rollback(store: RegistryClient, name: str, why: str, to: int | str | None = None) -> Record:
    """Make the champion before the present one champion again.

    Args:
        store: the registry.
        name: the registered model's name.
        why: the reason, which is kept for ever.
        to: another former champion, by number or alias.

    Raises:
        InputError: there is no former champion, or the one to go back to is damaged or gone; others are named.
    """
    with locked(store, name) as lease:
        reconcile(store, name)
        champion = store.aliases(name).get(CHAMPION)
        target = _former(store, name, champion) if to is None else _chosen(store, name, champion, to)
        return carry_out(store, target, _by_person("rollback", target, champion, why), lease)


def champions(past: Sequence[Record]) -> set[int]:
    """Every version that is or ever was champion, by the records; also where a crash left that open."""
    found = {number for record in past if _counts(record) for number in (record.before, record.after)}
    return {number for number in found if number is not None}


def verified(store: RegistryClient, version: Version) -> Manifest:
    """Hash a version's whole bundle, and check that it is the one that was registered.

    Raises:
        InputError: it is damaged, incomplete or another version's; the file is named.
    """
    with store.bundles.folder(version) as folder:
        manifest = verify_bundle(folder)
    version.check(manifest)
    return manifest


def _former(store: RegistryClient, name: str, champion: int | None) -> Version:
    """The champion before the present one, verified."""
    line = line_of_champions(store, name)
    before = next((number for number in reversed(line) if number != champion), None)
    if before is None:
        raise InputError(
            f"There is no champion of '{name}' before {_named(champion)}, so there is nothing to go back to."
        )
    try:
        version = store.get(name, before)
        verified(store, version)
    except InputError as error:
        choice = _sound(store, name, champions(records(store, name)) - {before, champion})
        raise InputError(
            f"Version {before}, the champion before {_named(champion)}, is of no use. {error} {choice}"
        ) from None
    return version


def _chosen(store: RegistryClient, name: str, champion: int | None, to: int | str) -> Version:
    """A former champion that a person chose, verified."""
    version, former = store.get(name, to), champions(records(store, name)) - {champion}
    if version.version not in former:
        raise InputError(
            f"Version {version.version} of '{name}' is no former champion; these are {_listed(former)}. "
            "Use `promote` for any other version."
        )
    verified(store, version)
    return version


def _sound(store: RegistryClient, name: str, numbers: set[int]) -> str:
    """Which of these versions could be used instead."""
    return f"Choose another with --to: {_listed({number for number in numbers if _is_sound(store, name, number)})}."


def _is_sound(store: RegistryClient, name: str, number: int) -> bool:
    try:
        verified(store, store.get(name, number))
    except InputError:
        return False
    return True


def _obstacle(version: Version, manifest: Manifest) -> str | None:
    """Why a version cannot be promoted without force."""
    decision = decision_of(version)
    if manifest.facts.in_sample:
        return "its numbers are in-sample and say nothing about new listens"
    if decision is None:
        return "nothing was decided about it"
    return f"the gate rejected it ({decision.reason.rstrip('.')})" if decision.outcome == "reject" else None


def _by_person(kind: Kind, version: Version, champion: int | None, why: str) -> Entry:
    if not why.strip():
        raise InputError('The reason is empty; say with --why "reason" what the next person should know.')
    if len(why) > MAX_WORDS:
        raise InputError(f"The reason has {len(why)} characters; at most {MAX_WORDS} are kept.")
    return Entry(
        kind=kind,
        version=version.version,
        before=champion,
        after=version.version,
        why=why,
        by=whoami(),
        bundle=version.tags.get(DIGEST_TAG, ""),
        decision=decision_of(version) if kind == "promotion" else None,
        run=version.run_id,
    )


def _forced(entry: Entry, reason: str) -> Entry:
    decision = entry.decision.model_copy(update={"forced": reason}) if entry.decision else None
    return replace(entry, forced=reason, decision=decision)


def _counts(record: Record) -> bool:
    return record.kind != "deletion" and record.moves and record.state != "abandoned"


def _named(champion: int | None) -> str:
    return "the present one" if champion is None else f"version {champion}"


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) if numbers else "there is none"

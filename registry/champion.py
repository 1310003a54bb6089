"""The champion: a person promotes a version or rolls back to a former champion; every move is a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data.errors import InputError
from registry.audit_log import (
    MAX_CHARACTERS,
    AuditRecord,
    Change,
    Kind,
    carry_out,
    champion_lineage,
    decision_of,
    reconcile,
    records,
    whoami,
)
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import locked
from registry.backend.version import DIGEST_TAG, Version
from registry.bundle.manifest import Manifest, verify_bundle

__all__ = ["champions", "promote", "records", "rollback", "verified_manifest"]


def promote(client: RegistryClient, name: str, which: int | str, why: str, force: str | None = None) -> AuditRecord:
    """Make a version champion, because a person decided so.

    Args:
        client: the registry.
        name: the registered model's name.
        which: the version's number, or an alias.
        why: the reason, which is kept for ever.
        force: the reason for overruling the gate; needed if the gate rejected the version or never decided about it,
            or if the version's numbers are in-sample.

    Raises:
        InputError: the version does not exist, is champion already, is damaged, or would have to be forced.
    """
    with locked(client, name) as lease:
        reconcile(client, name)
        version, champion = client.get(name, which), client.aliases(name).get(CHAMPION)
        if version.version == champion:
            raise InputError(f"Version {champion} of '{name}' is the champion already.")
        obstacle = _obstacle(version, verified_manifest(client, version))
        if obstacle and not force:
            raise InputError(
                f"Version {version.version} of '{name}' is not promoted: {obstacle}. Give --force \"reason\" to "
                "promote it nevertheless; that stays on record."
            )
        change = _by_person("promotion", version, champion, why)
        if obstacle and force:
            decision = change.decision.model_copy(update={"forced": force}) if change.decision else None
            change = replace(change, forced=force, decision=decision)
        return carry_out(client, version, change, lease)


def rollback(client: RegistryClient, name: str, why: str, to: int | str | None = None) -> AuditRecord:
    """Make the champion before the present one champion again.

    Args:
        client: the registry.
        name: the registered model's name.
        why: the reason, which is kept for ever.
        to: another former champion, by number or alias.

    Raises:
        InputError: there is no former champion, or the one to go back to is damaged or gone; others are named.
    """
    with locked(client, name) as lease:
        reconcile(client, name)
        champion = client.aliases(name).get(CHAMPION)
        target = _former(client, name, champion) if to is None else _chosen(client, name, champion, to)
        return carry_out(client, target, _by_person("rollback", target, champion, why), lease)


def champions(past: Sequence[AuditRecord]) -> set[int]:
    """Return every version that is or ever was champion; also of a record that a crash left open."""
    moves = [
        record for record in past if record.kind != "deletion" and record.moves_champion and record.state != "abandoned"
    ]
    return {number for record in moves for number in (record.before, record.after) if number is not None}


def verified_manifest(client: RegistryClient, version: Version) -> Manifest:
    """Hash a version's whole bundle, check that it is the one that was registered, and return its manifest.

    Raises:
        InputError: it is damaged, incomplete or another version's; the file is named.
    """
    with client.bundles.folder(version) as folder:
        manifest = verify_bundle(folder)
    version.check(manifest)
    return manifest


def _former(client: RegistryClient, name: str, champion: int | None) -> Version:
    """Return the champion before the present one, verified."""
    lineage = champion_lineage(client, name)
    before = next((number for number in reversed(lineage) if number != champion), None)
    present = "the present one" if champion is None else f"version {champion}"
    if before is None:
        raise InputError(f"There is no champion of '{name}' before {present}, so there is nothing to go back to.")
    try:
        version = client.get(name, before)
        verified_manifest(client, version)
    except InputError as error:
        others = champions(records(client, name)) - {before, champion}
        sound = {number for number in others if _is_sound(client, name, number)}
        raise InputError(
            f"Version {before}, the champion before {present}, is of no use. {error} "
            f"Choose another with --to: {_listed(sound)}."
        ) from None
    return version


def _chosen(client: RegistryClient, name: str, champion: int | None, to: int | str) -> Version:
    """Return a former champion that a person chose, verified."""
    version, former = client.get(name, to), champions(records(client, name)) - {champion}
    if version.version not in former:
        raise InputError(
            f"Version {version.version} of '{name}' is no former champion; these are {_listed(former)}. "
            "Use `promote` for any other version."
        )
    verified_manifest(client, version)
    return version


def _is_sound(client: RegistryClient, name: str, number: int) -> bool:
    try:
        verified_manifest(client, client.get(name, number))
    except InputError:
        return False
    return True


def _obstacle(version: Version, manifest: Manifest) -> str | None:
    """Return why a version cannot be promoted without force."""
    decision = decision_of(version)
    if manifest.facts.in_sample:
        return "its numbers are in-sample and say nothing about new listens"
    if decision is None:
        return "nothing was decided about it"
    return f"the gate rejected it ({decision.reason.rstrip('.')})" if decision.outcome == "reject" else None


def _by_person(kind: Kind, version: Version, champion: int | None, why: str) -> Change:
    if not why.strip():
        raise InputError('The reason is empty; say with --why "reason" what the next person should know.')
    if len(why) > MAX_CHARACTERS:
        raise InputError(f"The reason has {len(why)} characters; at most {MAX_CHARACTERS} are kept.")
    return Change(
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


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) if numbers else "there is none"

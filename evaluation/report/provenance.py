"""What the model was made from and by: the log, the configuration, digests, and what each stage cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.report.blocks import Cell, Figures, Section, Table, number, settings_table
from evaluation.report.plots import histogram
from evaluation.report.readings import section
from evaluation.report.sources import STAGE_MANIFEST, Sources, read_json
from evaluation.report.words import count, percent

DEGREES = {
    "user": ("songs of a user", "users"),
    "song": ("listeners of a song", "songs"),
    "artist": ("songs of an artist", "artists"),
}
SIZES = ("events", "plays", "users", "songs", "artists", "pairs", "song_artists")


def data(sources: Sources) -> Section:
    """Counts, days, rows by fate, and degrees."""
    profile = read_json(sources.graph / "profile.json", {})
    if not profile:
        return section("data", absent="This graph was built without a profile.")
    panels = [
        (title.capitalize(), _degree_panel(kind, profile))
        for kind, (title, _) in DEGREES.items()
        if profile[f"{kind}s"]
    ]
    return section("data", [_sizes(profile), _rows(profile), Figures(panels), _quantiles(profile)])


def configs(sources: Sources) -> Section:
    """The model's whole config, defaults included, and what each stage was told."""
    model = read_json(sources.model / "config.json", {})
    tables = [
        settings_table(title, model[key], folded=False)
        for key, title in (("model_config", "Model"), ("training_config", f"Trainer: {model.get('trainer', '')}"))
        if model.get(key)
    ]
    manifests = _manifests(sources)
    told = [
        settings_table(f"Stage: {name}", manifest["config"])
        for name, manifest in manifests.items()
        if manifest.get("config")
    ]
    return section("configs", [*tables, *told])


def lineage(sources: Sources) -> Section:
    """Digests from the log to the registered version."""
    manifests, bundle = _manifests(sources), _bundle(sources)
    log = manifests.get("listens", {}).get("inputs", {}).get("log", {})
    rows = [_digest_row("log", log["sha256"])] if log else []
    rows += [
        _digest_row(name, found["sha256"], found.get("key", ""), found.get("inputs", ()))
        for name, found in manifests.items()
    ]
    rows.append(_digest_row("split", sources.record().split_digest))
    rows += [_digest_row("bundle", bundle["digest"])] if bundle else []
    versions = {"metric contract": sources.record().metric_version, **bundle.get("facts", {}).get("versions", {})}
    digests = Table(("what", "SHA-256 and key", "made from"), rows, "From the log to the version")
    return section("lineage", [digests, settings_table("Versions", versions, folded=False)])


def stages(sources: Sources) -> Section:
    """Seconds and peak memory of each stage."""
    manifests = {name: manifest for name, manifest in _manifests(sources).items() if "seconds" in manifest}
    if not manifests:
        return section("stages", absent="The stages left no timings.")
    longest = max(manifest["seconds"] for manifest in manifests.values()) or 1
    widest = max(manifest.get("peak_mib") or 0 for manifest in manifests.values()) or 1
    rows = [_stage_row(name, manifest, longest, widest) for name, manifest in manifests.items()]
    total = sum(manifest["seconds"] for manifest in manifests.values())
    caption = f"{total:,.1f} seconds in all"
    return section("stages", [Table(("stage", "seconds", "peak MiB", "started", "why it ran"), rows, caption)])


def _sizes(profile: Mapping[str, Any]) -> Table:
    days = f"{profile['first_day']} to {profile['last_day']}" if profile.get("first_day") else "the log has no times"
    rows = [[Cell(name.replace("_", "-")), number(count(profile[name]))] for name in SIZES]
    density = profile["pairs"] / max(profile["users"] * profile["songs"], 1)
    rows += [[Cell("density"), number(percent(density))], [Cell("days"), number(days)]]
    return Table(("what", "count"), rows, "What is in the graph", narrow=True)


def _rows(profile: Mapping[str, Any]) -> Table:
    fate = profile["rows"]
    reasons = fate.get("rejected_by_reason", {})
    rows = [("read", fate["read"], "strong"), ("kept", fate["kept"], ""), ("duplicates", fate.get("duplicates", 0), "")]
    rows += [(f"dropped by {rule}", dropped, "") for rule, dropped in fate["dropped"].items() if dropped]
    rows.append(("rejected", fate["rejected"], "bad" if fate["rejected"] else ""))
    rows += [(f"rejected: {reason}", rejected, "muted") for reason, rejected in reasons.items()]
    cells = [
        [Cell(name, kind), number(count(value)), number(_share(value, fate["read"]))] for name, value, kind in rows
    ]
    return Table(("rows", "count", "share"), cells, "What became of the log's rows", narrow=True)


def _share(part: int, whole: int) -> str:
    return percent(part / max(whole, 1))


def _degree_panel(kind: str, profile: Mapping[str, Any]) -> str:
    bins, (title, nodes) = profile["degrees"][kind]["histogram"], DEGREES[kind]
    return histogram(
        f"degrees-{kind}", bins["edges"], bins["counts"], title, nodes, says=f"How many {nodes} have how many {title}"
    )


def _quantiles(profile: Mapping[str, Any]) -> Table:
    names = ("mean", "min", "p10", "median", "p90", "p99", "max", "isolated")
    rows = [
        [Cell(title), *(number(_plain(profile["degrees"][kind][name])) for name in names)]
        for kind, (title, _) in DEGREES.items()
    ]
    return Table(("degree", *names), rows, "Degrees")


def _plain(value: float) -> str:
    return count(value) if float(value).is_integer() else f"{value:,.1f}"


def _manifests(sources: Sources) -> dict[str, dict[str, Any]]:
    """The manifests of stages by name, and those of what else the registered version was made from, for example the
    audit; a folder that no stage wrote has none."""
    found = {name: read_json(folder / STAGE_MANIFEST, {}) for name, folder in sources.stages().items()}
    registered = found.get("registration", {}).get("inputs", {})
    more = {name: ref["path"] for name, ref in registered.items() if ref.get("path") and _plain_name(name) not in found}
    found = {**{name: read_json(Path(path) / STAGE_MANIFEST, {}) for name, path in more.items()}, **found}
    return {name: manifest for name, manifest in sorted(found.items(), key=_by_start) if manifest}


def _plain_name(name: str) -> str:
    return name.replace("_", " ")


def _by_start(item: tuple[str, Mapping[str, Any]]) -> float:
    started: float = item[1].get("started", 0.0)
    return started


def _bundle(sources: Sources) -> dict[str, Any]:
    """The manifest of the registered bundle; empty for a run that registered nothing."""
    folder = sources.registration
    found: dict[str, Any] = read_json(folder / "bundle" / STAGE_MANIFEST, {}) if folder else {}
    return found


def _digest_row(what: str, sha256: str, key: str = "", made_from: Iterable[str] = ()) -> list[Cell]:
    said = ", ".join(map(_plain_name, made_from))
    return [Cell(what), Cell(sha256, "code", details=(f"key {key}" if key else "",)), Cell(said, "muted")]


def _stage_row(name: str, manifest: Mapping[str, Any], longest: float, widest: float) -> list[Cell]:
    peak = manifest.get("peak_mib")
    return [
        Cell(name),
        Cell(f"{manifest['seconds']:,.1f}", "number", manifest["seconds"] / longest),
        Cell(f"{peak:,.0f}", "number", peak / widest) if peak else Cell("not measured", "muted"),
        Cell(_when(manifest.get("started")), "muted"),
        Cell(manifest.get("why", ""), "muted"),
    ]


def _when(started: float | None) -> str:
    return datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if started else ""

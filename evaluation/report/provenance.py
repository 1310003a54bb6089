"""The sections on the log, the configuration, the digests, and the time and memory of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.report.blocks import Cell, Figures, Section, Table, number, settings_table
from evaluation.report.number_format import count, percent
from evaluation.report.plots import histogram
from evaluation.report.section_texts import section
from evaluation.report.sources import STAGE_MANIFEST, Sources, read_json

DEGREES = {
    "user": ("songs of a user", "users"),
    "song": ("listeners of a song", "songs"),
    "artist": ("songs of an artist", "artists"),
}
SIZES = ("events", "plays", "users", "songs", "artists", "pairs", "song_artists")


def data(sources: Sources) -> Section:
    """Show counts, days, kept and dropped rows, and degrees."""
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
    """Show all settings of the model and its trainer, with defaults, and the settings of each stage."""
    model = read_json(sources.model / "config.json", {})
    tables = [
        settings_table(title, model[key], folded=False)
        for key, title in (("model_config", "Model"), ("training_config", f"Trainer: {model.get('trainer', '')}"))
        if model.get(key)
    ]
    stage_tables = [
        settings_table(f"Stage: {name}", manifest["config"])
        for name, manifest in _manifests(sources).items()
        if manifest.get("config")
    ]
    return section("configs", [*tables, *stage_tables])


def lineage(sources: Sources) -> Section:
    """Show the digests from the log to the registered version."""
    manifests, registration = _manifests(sources), sources.registration
    bundle = read_json(registration / "bundle" / STAGE_MANIFEST, {}) if registration else {}
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
    """Show the seconds and the peak memory of each stage."""
    manifests = {name: manifest for name, manifest in _manifests(sources).items() if "seconds" in manifest}
    if not manifests:
        return section("stages", absent="The stages have no timings.")
    most_seconds = max(manifest["seconds"] for manifest in manifests.values()) or 1
    most_memory = max(manifest.get("peak_mib") or 0 for manifest in manifests.values()) or 1
    rows = [_stage_row(name, manifest, most_seconds, most_memory) for name, manifest in manifests.items()]
    total = sum(manifest["seconds"] for manifest in manifests.values())
    caption = f"{total:,.1f} seconds in all"
    return section("stages", [Table(("stage", "seconds", "peak MiB", "started", "why it ran"), rows, caption)])


def _sizes(profile: Mapping[str, Any]) -> Table:
    days = f"{profile['first_day']} to {profile['last_day']}" if profile.get("first_day") else "the log has no times"
    rows = [[Cell(name.replace("_", "-")), number(count(profile[name]))] for name in SIZES]
    density = profile["pairs"] / max(profile["users"] * profile["songs"], 1)
    rows += [[Cell("density"), number(percent(density))], [Cell("days"), number(days)]]
    return Table(("what", "count"), rows, "Contents of the graph", narrow=True)


def _rows(profile: Mapping[str, Any]) -> Table:
    counts = profile["rows"]
    reasons = counts.get("rejected_by_reason", {})
    rows = [
        ("read", counts["read"], "strong"),
        ("kept", counts["kept"], ""),
        ("duplicates", counts.get("duplicates", 0), ""),
    ]
    rows += [(f"dropped by {rule}", dropped, "") for rule, dropped in counts["dropped"].items() if dropped]
    rows.append(("rejected", counts["rejected"], "bad" if counts["rejected"] else ""))
    rows += [(f"rejected: {reason}", rejected, "muted") for reason, rejected in reasons.items()]
    cells = [
        [Cell(name, kind), number(count(value)), number(percent(value / max(counts["read"], 1)))]
        for name, value, kind in rows
    ]
    return Table(("rows", "count", "share"), cells, "Rows of the log", narrow=True)


def _degree_panel(kind: str, profile: Mapping[str, Any]) -> str:
    bins, (title, nodes) = profile["degrees"][kind]["histogram"], DEGREES[kind]
    return histogram(f"degrees-{kind}", bins["edges"], bins["counts"], title, nodes, alt_text=f"Histogram of {title}")


def _quantiles(profile: Mapping[str, Any]) -> Table:
    names = ("mean", "min", "p10", "median", "p90", "p99", "max", "isolated")
    rows = []
    for kind, (title, _) in DEGREES.items():
        values = [profile["degrees"][kind][name] for name in names]
        texts = [count(value) if float(value).is_integer() else f"{value:,.1f}" for value in values]
        rows.append([Cell(title), *map(number, texts)])
    return Table(("degree", *names), rows, "Degrees")


def _manifests(sources: Sources) -> dict[str, dict[str, Any]]:
    """Read the manifests of the stages by name, in the order in which the stages started.

    The inputs of the registered version add those of further stages, for example the audit. A folder that no stage
    wrote has no manifest.
    """
    found = {name: read_json(folder / STAGE_MANIFEST, {}) for name, folder in sources.stages().items()}
    registered = found.get("registration", {}).get("inputs", {})
    more = {
        name: ref["path"] for name, ref in registered.items() if ref.get("path") and _with_spaces(name) not in found
    }
    found = {**{name: read_json(Path(path) / STAGE_MANIFEST, {}) for name, path in more.items()}, **found}
    by_start = sorted(found.items(), key=lambda item: float(item[1].get("started", 0.0)))
    return {name: manifest for name, manifest in by_start if manifest}


def _with_spaces(name: str) -> str:
    return name.replace("_", " ")


def _digest_row(what: str, sha256: str, key: str = "", made_from: Iterable[str] = ()) -> list[Cell]:
    inputs = ", ".join(map(_with_spaces, made_from))
    return [Cell(what), Cell(sha256, "code", details=(f"key {key}" if key else "",)), Cell(inputs, "muted")]


def _stage_row(name: str, manifest: Mapping[str, Any], most_seconds: float, most_memory: float) -> list[Cell]:
    peak, started = manifest.get("peak_mib"), manifest.get("started")
    return [
        Cell(name),
        Cell(f"{manifest['seconds']:,.1f}", "number", manifest["seconds"] / most_seconds),
        Cell(f"{peak:,.0f}", "number", peak / most_memory) if peak else Cell("not measured", "muted"),
        Cell(datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if started else "", "muted"),
        Cell(manifest.get("why", ""), "muted"),
    ]

"""Put the report together: one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.report.blocks import Section
from evaluation.report.gate import audit, gate
from evaluation.report.headline import headline
from evaluation.report.listeners import sample_listeners
from evaluation.report.popularity import popularity
from evaluation.report.provenance import configs, data, lineage, stages
from evaluation.report.quality import against_k, between_seeds, learning_curves, numbers, slices
from evaluation.report.sources import Sources

PARTS: tuple[Callable[[Sources], Section | None], ...] = (
    numbers,
    between_seeds,
    against_k,
    slices,
    popularity,
    sample_listeners,
    learning_curves,
    gate,
    audit,
    data,
    configs,
    lineage,
    stages,
)


def write_report(path: Path, sources: Sources) -> list[str]:
    """Write the report of a run: one HTML file that loads nothing. The same folders give the same bytes.

    If a run did not compute something, its section says so.

    Args:
        path: the file to write; its folder exists.
        sources: the folders of the run.

    Returns:
        anchors of the sections that have something to show.

    Raises:
        InputError: a file that every run has is missing, or a file is damaged.
    """
    found = [section for part in PARTS if (section := part(sources))]
    path.write_text(_page(sources, found), encoding="utf-8")
    return [section.anchor for section in found if not section.absent]


def _page(sources: Sources, sections: list[Section]) -> str:
    pages = Environment(
        loader=PackageLoader("evaluation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8"))
    return pages.get_template("page.html.jinja").render(head=headline(sources), sections=sections, style=style)

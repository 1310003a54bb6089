"""How popular the recommended songs are, beside those that people listen to."""

from __future__ import annotations

from evaluation.report.blocks import Section
from evaluation.report.readings import section
from evaluation.report.sources import Sources, read_json


def popularity(sources: Sources) -> Section:
    """Share of recommended places, of train listens and of test listens, by the popularity of the songs."""
    found = read_json(sources.evaluation / "exposure.json", {})
    if not found:
        return section("popularity", absent="This evaluation kept no shares of popularity.")
    return section("popularity")

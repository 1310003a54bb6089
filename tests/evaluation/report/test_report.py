"""The report says what the folders of a run hold, loads nothing, and runs nothing that came from a log."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data.errors import InputError
from evaluation.record import EvaluationRecord
from evaluation.report import Sources, write_report

MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "br", "link", "img", "input", "hr"}
ALL = [
    "numbers", "seeds", "k", "slices", "popularity", "listeners", "learning",
    "gate", "audit", "data", "configs", "lineage", "stages",
]  # fmt: skip


class Page(HTMLParser):
    """Text by section, ids and attributes; fails where tags are not balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.text: dict[str, str] = {"": ""}
        self.section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [given["id"]] if given.get("id") else []
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data") and value
        ]
        if tag == "section":
            self.section = given["id"] or ""
            self.text[self.section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())
        self.section = "" if tag == "section" else self.section

    def handle_data(self, data: str) -> None:
        self.text[self.section] += data + " "


@pytest.fixture(scope="session")
def html(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(path, sources) == ALL
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def shown(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_number_of_the_evaluation_is_in_the_report(page, sources):
    record = EvaluationRecord.read(sources.evaluation / "metrics.json")
    text = page.text["numbers"]
    for intervals in (record.metrics, *record.baselines.values()):
        for name, interval in intervals.items():
            assert name in text
            for value in vars(interval).values():
                assert f"{value:.4f}" in text or f"{value:.2f}" in text or f"{value:,.1f}" in text
    gap = record.differences["popularity"]["recall@10"]
    assert f"{gap.mean:+.4f}".replace("-", MINUS) in text
    assert f"{record.conventions['min_k']['recall@10'].mean:.4f}" in text


def test_the_headline_names_model_baseline_champion_and_decision(page, sources):
    record, top = sources.record(), shown(page.text[""])
    watched = record.metrics["recall@10"]
    assert f"recall@10 {watched.mean:.4f} {watched.low:.4f} to {watched.high:.4f}, 95 % interval" in top
    assert f"Best baseline: popularity {record.baselines['popularity']['recall@10'].mean:.4f}" in top
    assert f"Champion: version 4 0.2500 model {MINUS}0.0123 ({MINUS}0.0456 to +0.0078), 33 users" in top
    assert "version 7 Held" in top
    assert "Held: it is not shown to be as good as champion 4." in top
    assert "The model is better than the best baseline, popularity." in top
    found = f"On average, {100 * watched.mean:.1f} % of a user's held-out songs are among the model's first 10 "
    assert f"{found}({record.num_users} users, all" in top


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("seeds", ["0.0141", "0.1900", "0.2100", "+0.0500"]),
        ("slices", ["activity", "cold songs", "more than 5"]),
        ("popularity", ["head", "middle", "tail", "test listens", "%"]),
        ("gate", ["Popularity is beaten.", "coverage fell", "as many plays as before", "c" * 64, f"{MINUS}0.0123"]),
        ("audit", ["no pair is in two parts", "planted pairs were not noticed", "what the log itself leaks"]),
        ("data", ["2025-01-01 to 2025-01-28", "1,200", "listeners of a song"]),
        ("configs", ["architecture", "lightgcn", "not set", "num_epochs"]),
        ("lineage", ["d" * 64, "a" * 32, "e" * 64, "2.13.0"]),
        ("stages", ["12.5", "346", "2025-06-15 15:06:40 UTC"]),
        ("learning", ["epoch 2, whose weights are evaluated", "Training: loss", "Learning rate"]),
    ],
)
def test_a_section_says_what_its_folder_holds(page, section, expected):
    for text in expected:
        assert text in page.text[section], text


def test_slices_are_those_of_the_evaluation(page, sources):
    rows = json.loads((sources.evaluation / "slices.json").read_text())
    for row in rows:
        assert f"{row['interval']['mean']:.4f} ({row['interval']['low']:.4f} to" in page.text["slices"]
        assert row["description"] in page.text["slices"]


def test_a_dozen_listeners_with_names_of_songs_and_bands(html, page):
    assert html.count('<details class="listener"') == 12
    text = page.text["listeners"]
    assert "Song number" in text
    assert "Band number" in text
    assert text.count("Held out") == 12
    assert "Listened to" in text


def test_checked_songs_are_the_hits_that_recall_counts(html, sources):
    people = re.findall(r'<details class="listener".*?</details>', html, flags=re.DOTALL)
    for person in people:
        held, recall = re.search(r"(\d+) held out; recall@10 ([\d.]+)", person).groups()
        recommended = person.split("<h4>")[2]
        assert recommended.startswith("Recommended")
        assert recommended.count('class="found"') == pytest.approx(int(held) * float(recall), abs=0.01)


def test_a_name_from_the_log_is_text_and_never_markup(html, page, sources):
    assert "<script" not in html.lower()
    assert "&lt;script&gt;" in html
    assert "script" not in page.tags
    assert "songs of &lt;b&gt;others&lt;/b&gt;" in html


def test_the_file_loads_nothing(html, page):
    assert all(target.startswith("#") for target in page.loads)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed"}
    assert len(html.encode()) < 1_500_000


def test_links_and_pictures_point_to_what_is_there_once(page):
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in page.loads} <= set(page.ids)


def test_the_same_folders_give_the_same_bytes(html, sources, tmp_path):
    write_report(tmp_path / "again.html", sources)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


OPTIONAL = ["slices.json", "curves.json", "exposure.json"]


def test_what_was_not_computed_is_left_out_with_a_sentence(sources, tmp_path):
    evaluation = tmp_path / "evaluation"
    shutil.copytree(sources.evaluation, evaluation, ignore=shutil.ignore_patterns(*OPTIONAL))
    bare = replace(sources, evaluation=evaluation, baselines={}, registration=None, seeds=None)
    assert write_report(tmp_path / "report.html", bare) == [
        "numbers", "listeners", "learning", "data", "configs", "lineage", "stages",
    ]  # fmt: skip
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "This evaluation has no slices." in page.text["slices"]
    assert "This evaluation has no curves over k." in page.text["k"]
    assert "This evaluation has no shares by popularity." in page.text["popularity"]
    assert "No decision was recorded for this run." in page.text["gate"]
    assert "Not registered" in page.text[""]
    assert "audit" not in page.text


def test_folders_without_profile_history_and_manifest_are_named(sources, tmp_path):
    for name in ("graph", "model"):
        left = shutil.ignore_patterns("profile.json", "history.json", "manifest.json")
        shutil.copytree(getattr(sources, name), tmp_path / name, ignore=left)
    bare = replace(sources, graph=tmp_path / "graph", model=tmp_path / "model")
    write_report(tmp_path / "report.html", bare)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "This graph was built without a profile." in page.text["data"]
    assert "The trainer wrote no history." in page.text["learning"]
    assert "The stages have no timings." in page.text["stages"]


def test_an_in_sample_run_says_so(make_sources: Callable[..., Sources], tmp_path):
    sources = make_sources(in_sample=True)
    write_report(tmp_path / "report.html", sources)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "In-sample: on average," in page.text[""]
    assert "The model was trained on all of them, so this says nothing about new songs." in page.text[""]
    assert "in_sample_recall@10" in page.text["numbers"]
    assert "Held out" not in page.text["listeners"]
    assert "the last weights are evaluated" in page.text["learning"]


def test_a_log_of_two_columns_has_a_report(make_sources: Callable[..., Sources], tmp_path):
    sources = make_sources(names=False, artists=False, times=False)
    write_report(tmp_path / "report.html", sources)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "track " in page.text["listeners"]
    assert "Band" not in page.text["listeners"]
    assert "the log has no times" in page.text["data"]
    assert "artist_diversity@10" not in page.text["numbers"]


def test_a_damaged_file_is_named(sources, tmp_path):
    evaluation = Path(shutil.copytree(sources.evaluation, tmp_path / "evaluation"))
    (evaluation / "curves.json").write_text("{")
    sentence = f"The report needs {evaluation / 'curves.json'}, which is not readable JSON; run its stage again."
    with pytest.raises(InputError, match=re.escape(sentence)):
        write_report(tmp_path / "report.html", replace(sources, evaluation=evaluation))
    assert not (tmp_path / "report.html").exists()

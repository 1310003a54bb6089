"""The README is a short tour whose numbers are those of the results, and from which every page can be reached."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, linked_pages, marked_table, read, table_rows, tables

MOST_LINES = 180
NUMBER = re.compile(r"\b0\.\d{3,}\b")


def folders_of(*parents: str, depth: int) -> set[str]:
    """Folders that hold tracked files, down to a depth, as ``models/graph``."""
    listed = subprocess.run(["git", "ls-files", *parents], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {Path(path).parent for path in listed.stdout.splitlines()}
    return {"/".join(folder.parts[:depth]) for folder in folders if len(folder.parts) >= depth}


def test_the_readme_is_a_tour() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) <= MOST_LINES
    first_screen = "\n".join(lines[:14])
    assert "```\nmake train\n```" in first_screen
    assert re.search(r"\d+ s\b.*GPU", first_screen)
    assert "](docs/images/report.png)" in first_screen


def test_its_first_numbers_are_those_of_the_output_below() -> None:
    top, output = read("README.md").split("<!-- make train -->")
    output = output.partition("<!-- /make train -->")[0]
    seconds = re.findall(r"\b(\d+) s\b", top)
    assert seconds
    assert all(f"{found} s" in output for found in seconds)
    assert NUMBER.findall(top)
    assert set(NUMBER.findall(top)) <= set(NUMBER.findall(output))


def test_its_results_are_those_that_were_measured() -> None:
    ((path, shown),) = re.findall(r"<!-- from: (\S+) -->\n((?:\|.*\n)+)", read("README.md"))
    head, *rows = table_rows(shown)
    columns, *measured = tables(path)[0]
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in measured}
    assert {row[0] for row in rows} == set(found)
    for name, *cells in rows:
        assert cells == [found[name][column] for column in head[1:]], name


def test_every_other_number_of_its_results_is_on_the_page_about_benchmarks() -> None:
    results = read("README.md").partition("## Results")[2].partition("\n## ")[0]
    known = NUMBER.findall(read("docs/benchmarks.md") + read("benchmarks/results/lastfm-tracks.md"))
    assert set(NUMBER.findall(results)) <= set(known) | {"0.008"}  # the rounded 0.0079


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        reached.add(page)
        waiting |= {found for found in linked_pages(page) if found.suffix == ".md"} - reached
    assert set(PAGES) - reached == set()


def test_its_map_names_every_folder() -> None:
    map_of_folders = read("README.md").partition("## Folders\n\n```\n")[2].partition("```")[0]
    named = set(re.findall(r"^([\w.]+)/ ", map_of_folders, re.MULTILINE))
    assert named == {name for name in folders_of(depth=1) if not name.startswith(".")} | {"artifacts"}


def test_the_page_about_architecture_names_every_folder_of_code() -> None:
    packages = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")
    _, *rows = marked_table("docs/architecture.md", "rooms")
    named = {row[0].strip("`").rstrip("/") for row in rows}
    assert named == folders_of(*packages, depth=1) | folders_of(*packages, depth=2)


def test_the_index_of_decisions_has_every_decision() -> None:
    files = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    _, *rows = tables("docs/decisions/README.md")[0]
    assert [row[0] for row in rows] == [f"[{name[:4]}]({name})" for name in files]
    for name in files:
        assert read(f"docs/decisions/{name}").startswith(f"# {name[:4]}. ")


def test_the_glossary_is_in_order() -> None:
    _, *rows = tables("docs/glossary.md")[0]
    words = [row[0].replace("*", "").lower() for row in rows]
    assert words == sorted(words)


def test_a_commit_is_checked_like_make_check() -> None:
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert recipe
    commands = recipe[1].replace("$(VENV)", ".venv").replace("\t", "").splitlines()
    assert [hook["entry"] for hook in hooks] == commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_table_is_whole(page: Path) -> None:
    for table in tables(str(page.relative_to(ROOT))):
        assert {len(row) for row in table} == {len(table[0])}, table[0]

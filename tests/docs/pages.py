"""The pages, and how to read their blocks, tables and links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AT_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
IN_FOLDERS = [ROOT / name / "README.md" for name in ("benchmarks", "examples")]
PAGES = sorted([*AT_ROOT, *IN_FOLDERS, *ROOT.glob("docs/**/*.md")])

BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def read(page: str) -> str:
    """Return the text of a page, named from the project's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def marked_block(page: str, marker: str) -> str:
    """Return the Python block behind ``<!-- marker -->``."""
    found = re.search(rf"^<!-- {re.escape(marker)} -->\n```python\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no block marked '{marker}'"
    return found[1]


def marked_table(page: str, marker: str) -> list[list[str]]:
    """Return the rows of the table behind ``<!-- marker -->``, its head first, as the text of their cells."""
    found = re.search(rf"^<!-- {re.escape(marker)} -->\n((?:\|.*\n)+)", read(page), re.MULTILINE)
    assert found, f"{page} has no table marked '{marker}'"
    return table_rows(found[1])


def table_rows(text: str) -> list[list[str]]:
    """Return the rows of a table, its head first, as the text of their cells."""
    head, _, *rows = text.strip().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]


def tables(page: str) -> list[list[list[str]]]:
    """Return all tables of a page."""
    return [table_rows(found) for found in re.findall(r"^(?:\|.*\n)+", read(page), re.MULTILINE)]


def linked_pages(page: Path) -> set[Path]:
    """Return the files of this project that a page links to."""
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    return {(page.parent / link).resolve() for link in links if link}

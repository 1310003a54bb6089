"""The table of what trainers are worth: it keeps what was measured before, and what was committed can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np


def test_rows_of_one_trainer_replace_its_own_and_leave_the_others(script: Any, tmp_path: Path) -> None:
    claims, claim = script("trainer_claims"), script("claims.claim").Claim
    results = tmp_path / "results" / "claims.json"
    claims.keep(results, "online", [claim("online", "nightly", "0.1", False, 0.5)], 5)
    claims.keep(results, "meta", [claim("meta", "new users", "0.2", True, 2.0)], 3)
    claims.keep(results, "online", [claim("online", "nightly", "0.3", True, 0.25)], 5)
    rows = [line for line in results.with_suffix(".md").read_text().splitlines() if line.startswith("| `")]
    assert rows == ["| `meta` | new users | 0.2 | yes | 2.00 |", "| `online` | nightly | 0.3 | yes | 0.25 |"]


def test_the_committed_table_is_that_of_the_committed_numbers(script: Any) -> None:
    claims = script("trainer_claims")
    known = json.loads(claims.RESULTS.read_text(encoding="utf-8"))
    assert claims.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == claims.page(known)
    assert set(known) == set(claims.CLAIMS)
    assert all(found["rows"] and found["commit"] and found["machine"] for found in known.values())
    assert re.search(r"/(home|work|tmp|root|Users)/", json.dumps(known)) is None


def test_epochs_are_counted_until_the_mean_curve_is_near_where_it_ends(script: Any) -> None:
    warm_start = script("claims.warm_start")
    cold = np.array([[0.0, 0.5, 0.8, 1.0, 1.0, 1.0], [0.0, 0.7, 0.8, 1.0, 1.0, 1.0]])
    warm = np.array([[0.9, 1.1, 1.1, 1.1, 1.1, 1.1], [0.9, 1.1, 1.0, 1.0, 1.0, 1.0]])
    assert warm_start.epochs_to_bar(cold, warm) == (4, 2)
    assert warm_start.epochs_to_bar(cold, warm * 0.5) == (4, 7)

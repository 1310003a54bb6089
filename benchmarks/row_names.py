"""Names of the rows of ``comparison.py``, and of the compared metrics."""

from __future__ import annotations

from evaluation.baselines.choices import BASELINES

TRAINED = {"gat": "gat", "pyg-gat": "stock_gat:StockGAT", "lightgcn": "lightgcn", "mf": "mf"}
"""Trained rows to their architecture."""

DEFAULT_ROWS = (*TRAINED, "popularity", "item-knn-bm25", "ials", "ease")
ROWS = tuple(dict.fromkeys([*DEFAULT_ROWS, *BASELINES]))


def compared(k: int) -> tuple[str, str]:
    """Return the names of the compared metrics. The second one decides, and is shown in the curves."""
    return f"recall@{k}", f"ndcg@{k}"

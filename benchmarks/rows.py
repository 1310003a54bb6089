"""What ``comparison.py`` puts side by side, and by which metrics."""

from __future__ import annotations

from evaluation.baselines.choices import BASELINES

TRAINED = {"gat": "gat", "pyg-gat": "stock_gat:StockGAT", "lightgcn": "lightgcn", "mf": "mf"}
"""Rows that are trained, and their architecture."""

DEFAULT_ROWS = (*TRAINED, "popularity", "item-knn-bm25", "ials", "ease")
ROWS = tuple(dict.fromkeys([*DEFAULT_ROWS, *BASELINES]))


def compared(k: int) -> tuple[str, str]:
    """Names of what is measured; the second one is that of the curve, and decides."""
    return f"recall@{k}", f"ndcg@{k}"

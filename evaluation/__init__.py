"""Full ranking, metrics, intervals and baselines."""

from data.lazy import lazy_names

_MODULES = {
    "Evaluation": "evaluation.evaluate",
    "EvaluationRecord": "evaluation.record",
    "rank": "evaluation.ranking",
    "ranking_metrics": "evaluation.metrics",
    "popularity": "evaluation.baselines",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

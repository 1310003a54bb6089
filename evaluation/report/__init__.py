"""One self-contained HTML file about one run."""

from data.lazy import lazy_names

_MODULES = {"Sources": "evaluation.report.sources", "write_report": "evaluation.report.page"}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

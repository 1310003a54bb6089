"""The leakage audit: refuses to train where anything held out can be reached. ``python -m evaluation.audit``."""

from data.lazy import lazy_names

_MODULES = {
    "Audit": "evaluation.audit.result",
    "audit_graph": "evaluation.audit.auditor",
    "check_warm_start": "evaluation.audit.warm_start",
    "run_canary": "evaluation.audit.canary",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

from .auditor import audit_graph as audit_graph
from .planting import run_canary as run_canary
from .result import Audit as Audit
from .seen_pairs import check_warm_start as check_warm_start

from .baselines.popular import popularity as popularity
from .evaluation import Evaluation as Evaluation
from .metrics.accuracy import ranking_metrics as ranking_metrics
from .ranking import rank as rank
from .record import EvaluationRecord as EvaluationRecord

from .choices import BASELINES as BASELINES
from .choices import CHOICES as CHOICES
from .choices import create_baseline as create_baseline
from .popular import popularity as popularity

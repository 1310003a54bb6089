from .backend.client import exists as exists
from .loading import load as load
from .recommender import Recommender as Recommender

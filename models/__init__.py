"""Tensors in, tensors out: models that embed users and songs."""

from data.lazy import lazy_names

_MODULES = {
    "create_model": "models.factory",
    "RecommenderModel": "models.base",
    "ModelConfig": "models.base",
    "Embeddings": "models.base",
    "GAT": "models.gat",
    "LightGCN": "models.lightgcn",
    "MF": "models.mf",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

from .base import Embeddings as Embeddings
from .base import ModelConfig as ModelConfig
from .base import RecommenderModel as RecommenderModel
from .factory import create_model as create_model
from .gat import GAT as GAT
from .lightgcn import LightGCN as LightGCN
from .mf import MF as MF

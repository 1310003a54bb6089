"""Listening logs, the graph and its split."""

from data.lazy import lazy_names

_MODULES = {
    "Config": "data.config",
    "InputError": "data.errors",
    "IngestConfig": "data.events.config",
    "build_graph": "data.graph",
    "load_graph": "data.graph",
    "save_graph": "data.graph",
    "message_graph": "data.graph",
    "SplitConfig": "data.split",
    "split_graph": "data.training_graph",
    "SyntheticConfig": "data.synthetic.log",
    "write_log": "data.synthetic.log",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)

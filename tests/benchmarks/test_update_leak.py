"""What the update of a federated client gives away, with noise and without."""

from __future__ import annotations

from typing import Any

import torch
from torch_geometric.data import HeteroData

from data.graph import LISTENS, message_graph, node_counts
from models.factory import create_model
from trainers.federated.client import CATALOGUE, Client, client_graph, split_parameters
from trainers.federated.federated_config import FederatedConfig

CLIPPED = {"clipping_norm": 0.1, "local_optimizer": "sgd", "lr": 0.5, "num_negatives": 0, "batch_size": 64}


def test_an_update_without_noise_gives_songs_away_and_one_with_noise_does_not(
    script: Any, tiny_graph: HeteroData
) -> None:
    own = client_graph(message_graph(tiny_graph), torch.arange(10))
    few = own[LISTENS].edge_index[1] < 6
    own[LISTENS].edge_index, own[LISTENS].weight = own[LISTENS].edge_index[:, few], own[LISTENS].weight[few]
    quiet, loud = (song_update(own, node_counts(tiny_graph), noise) for noise in (0.0, 20.0))
    heard, leak = torch.arange(30) < 6, script("claims.update_leak").leak
    assert leak(quiet, heard) > 0.95
    assert leak(loud, heard) < 0.8  # by chance: 30 songs, four rankings


def song_update(graph: HeteroData, counts: dict[str, int], noise: float) -> torch.Tensor:
    """What a round of the first ten users changes in the rows of the songs."""
    model = {"architecture": "mf", **counts, "embedding_dim": 8, "dropout": 0.0}
    config = FederatedConfig.parse({**CLIPPED, "num_clients": 4, "noise_multiplier": noise}, "training_config")
    users, shared = split_parameters(create_model(model, 0))
    client = Client(0, model, config, graph)
    client.users = users[:10].clone()
    update: torch.Tensor = client.train(shared, config.lr, 1).shared[CATALOGUE] - shared[CATALOGUE]
    return update[:30]

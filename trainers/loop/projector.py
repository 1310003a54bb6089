"""Shows song vectors by name in TensorBoard's embedding projector."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import HeteroData

from data.display_names import artists_by_song, names_of
from data.graph import BY
from models.base import Embeddings
from trainers.sampling import train_pairs

MOST_SHOWN = 5000
"""Songs in the projector: a browser can turn about as many smoothly, and they are a few MB of text."""


def project_songs(folder: Path, embeddings: Embeddings, graph: HeteroData, vocabularies: Path) -> None:
    """Write the vectors of the songs with the most train listeners for the tab PROJECTOR of a run.

    Each is labelled with its title, its artists and how many listeners it has in training.

    Args:
        folder: the run's TensorBoard folder.
        embeddings: the trained model's.
        graph: what it was trained on.
        vocabularies: folder with songs.parquet and artists.parquet of that graph.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    listeners = train_pairs(graph)[1].bincount(minlength=int(graph["song"].num_nodes))
    shown = listeners.argsort(descending=True, stable=True)[:MOST_SHOWN]
    songs = shown.tolist()
    titles = names_of(vocabularies / "songs.parquet", "track", songs)
    song, artist = graph[BY].edge_index[:, torch.isin(graph[BY].edge_index[0], shown)].tolist()
    artists = artists_by_song(song, names_of(vocabularies / "artists.parquet", "artist", artist))
    labels = [
        [_one_line(title), _one_line(artists.get(song, "")), count]
        for song, title, count in zip(songs, titles, listeners[shown].tolist(), strict=True)
    ]
    with SummaryWriter(str(folder)) as writer:
        header = ["title", "artist", "train listeners"]
        writer.add_embedding(embeddings.song[shown], labels, tag="songs", metadata_header=header)


def _one_line(text: str) -> str:
    """Return the text without tabs and line breaks, which separate labels."""
    return " ".join(text.split())

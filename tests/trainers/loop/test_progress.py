"""What a person sees of a run on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from trainers.loop.progress import TrainingProgress


def test_bars_show_loss_metric_and_time_left():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with TrainingProgress(3, first_epoch=2, console=console) as progress:
        for _ in progress.track(range(4), total=4):
            progress.loss(0.25)
        progress.epoch(2, {"loss": 0.5, "recall@10": 0.125})
    text = screen.getvalue()
    assert "loss 0.2500" in text
    assert "2/3" in text
    assert "recall@10 0.1250" in text
    assert "-:--:--" in text or "0:00:0" in text


def test_tracking_passes_batches_on():
    progress = TrainingProgress(1, console=Console(file=io.StringIO()))
    assert list(progress.track(range(3), total=3)) == [0, 1, 2]

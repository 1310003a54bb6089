"""What a local run shows: our own lines about stages and epochs, Prefect's warnings, and no traceback for bad input."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import PrefectConsoleHandler

from data.errors import InputError

OURS = ("tasks", "registry", "trainers", "evaluation", "models", "data")
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """Within: our loggers print plain lines to standard error, and Prefect's speak only of what we do not say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = [logging.getLogger(name) for name in OURS]
    before = [list(logger.handlers) for logger in ours]
    for logger in ours:
        logger.handlers = [handler, *(kept for kept in logger.handlers if not isinstance(kept, PrefectConsoleHandler))]
        logger.setLevel(logging.INFO)
    loggers = [logging.getLogger(name) for name in RUN_LOGGERS]
    for logger in loggers:
        logger.addFilter(_unsaid)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_unsaid)
        for logger, handlers in zip(ours, before, strict=True):
            logger.handlers = handlers


def _unsaid(record: logging.LogRecord) -> bool:
    """Whether the command line does not say the same itself, in a sentence."""
    error = record.exc_info[1] if record.exc_info else None
    ended = "Finished in state" in record.getMessage()
    return record.levelno >= logging.WARNING and not ended and not isinstance(error, InputError | KeyboardInterrupt)

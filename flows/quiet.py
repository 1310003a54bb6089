"""Logs of a local run: our lines about stages and epochs, Prefect's warnings, and no traceback for bad input."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.logging.handlers import PrefectConsoleHandler

from data.errors import InputError

OURS = ("tasks", "registry", "trainers", "evaluation", "models", "data")
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
STDERR = 2  # the file descriptor
AT_EXIT = "EventsWorker"
"""Prefect's logger that warns at exit of events which its own short-lived server did not count in time."""


@contextmanager
def quiet_prefect() -> Iterator[None]:
    """Let our loggers print plain lines to standard error, and Prefect's only what ours do not print."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger(AT_EXIT).setLevel(logging.ERROR)
    logging.getLogger("prefect").setLevel(logging.WARNING)  # where pyproject.toml's settings are not read
    with ExitStack() as undo:
        for name in OURS:
            _speak_plainly(logging.getLogger(name), handler, undo)
        for logger in map(logging.getLogger, RUN_LOGGERS):
            logger.addFilter(_is_news)
            undo.callback(logger.removeFilter, _is_news)
        yield


def leave_quietly() -> None:
    """Once the interpreter is ending, write no more to standard error.

    Prefect's daemon threads hold on to the flow, and with it to DuckDB, whose binding then reports pages of "leaks" at
    exit. A traceback is printed before.
    """
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR))


def _speak_plainly(logger: logging.Logger, handler: logging.Handler, undo: ExitStack) -> None:
    """Print through ``handler`` alone on the terminal; Prefect's handler that sends logs to its server stays."""
    before = logger.handlers, logger.level, logger.propagate
    kept = [other for other in logger.handlers if not isinstance(other, PrefectConsoleHandler)]
    logger.handlers, logger.level, logger.propagate = [handler, *kept], logging.INFO, False

    def restore() -> None:
        logger.handlers, logger.level, logger.propagate = before

    undo.callback(restore)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record is news: the command line prints the end of a run itself, in one sentence."""
    error = record.exc_info[1] if record.exc_info else None
    ended = any(words in record.getMessage() for words in ("Finished in state", "Crash detected"))
    return record.levelno >= logging.WARNING and not ended and not isinstance(error, InputError | KeyboardInterrupt)


def log_bad_input_as_a_sentence() -> None:
    """Let Prefect log bad input as the sentence that it is; a bug keeps its traceback."""
    for logger in map(logging.getLogger, RUN_LOGGERS):
        logger.addFilter(_as_a_sentence)


def _as_a_sentence(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, InputError):
        record.msg, record.args, record.exc_info = str(error), (), None
    return True

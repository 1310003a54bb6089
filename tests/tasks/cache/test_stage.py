"""Which failures of a stage are tried again, and which are told at once."""

from __future__ import annotations

import errno
from unittest.mock import Mock

import pytest
from prefect.states import Failed

from data.errors import InputError
from tasks.cache.stage import _in_a_sentence, is_transient


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (ConnectionError("the server went away"), True),
        (TimeoutError("too slow"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (InputError("bad log"), False),
        (RuntimeError("a bug"), False),
    ],
)
def test_only_failures_of_input_and_output_are_tried_again(error: Exception, again: bool) -> None:
    assert is_transient(Mock(), Mock(), Failed(data=error)) is again


def test_a_full_disk_is_told_in_a_sentence_that_names_the_file() -> None:
    told = _in_a_sentence(OSError(errno.ENOSPC, "No space left on device", "graph.pt"), "graph")
    assert str(told) == (
        "The stage graph could not write 'graph.pt': No space left on device. Nothing was published; "
        "free some space or make the folder writable, and run the same command again."
    )

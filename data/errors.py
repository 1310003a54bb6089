"""The exception for errors that users can correct."""


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one sentence that says what was given (file, row or key), what is allowed, and what to do. Command
    lines print it without a traceback and exit with a code other than zero.
    """

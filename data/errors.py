"""The one exception that a person is meant to read."""


class InputError(ValueError):
    """Something that was given cannot be used.

    The message is the whole story, in a sentence: what was given (file, row or key), what is allowed, and what to do.
    Command lines print it without a traceback and exit with a code that is not zero.
    """

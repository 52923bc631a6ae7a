"""The one exception that a user is meant to read."""


class SSRError(ValueError):
    """Bad input or an impossible request; the message is one line that names the input and the mend.

    The command line prints it without a traceback and exits with code 2.
    """

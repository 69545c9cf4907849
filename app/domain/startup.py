"""Why the service cannot start."""


class StartupError(Exception):
    """A sentence for the operator; the process exits with a code that is not 0."""

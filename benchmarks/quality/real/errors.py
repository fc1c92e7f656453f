"""What a user can put right: shown without a traceback."""


class UsageError(ValueError):
    """Something cannot be done as asked; the message names it, says what came, and what is accepted."""

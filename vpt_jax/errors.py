"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Input that cannot be used: one line that says what is wrong and what to do.

    `vpt-jax` prints it without a traceback and exits with code 2.
    """

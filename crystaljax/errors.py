"""Errors that a user can cause, and that have no class of Python's own."""


class UserError(Exception):
    """A mistake of the user; its message says what to do, and is shown as one line."""

"""The error that a user can put right."""


class UserError(Exception):
    """Something the user can put right: the message names the file, line or key, and what to do."""

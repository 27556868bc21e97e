"""The error that a user can mend."""


class UserError(Exception):
    """Something the user can mend: the message names the file, line or key, and the mend."""

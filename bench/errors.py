"""The one exception that the command turns into a single line."""


class UserError(Exception):
    """Something the user can mend. The message names the field, the value and the mend, in one line."""

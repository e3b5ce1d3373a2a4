"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """Bad input of the user's: the message names the value, the reason and the way out.

    The command line prints it as one line and exits with status 1. Everything else that escapes is
    a fault of ours and keeps its traceback.
    """

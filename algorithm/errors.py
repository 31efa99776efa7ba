"""The one exception that is meant for the user's eyes."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what was required, what came, in which file, and the remedy. Entry points print
    it as the last line of stderr and exit with status 1, without a traceback.
    """

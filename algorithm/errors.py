"""The one exception that is meant for the user's eyes."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what was required, what came, in which file, and the remedy. Entry points print
    it as the last line of stderr and exit with status 1, without a traceback. Line breaks and what no terminal should
    be sent, which a file's name may hold, are shown as Python writes them.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return a text in which control characters and lone surrogates stand as Python escapes them."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)

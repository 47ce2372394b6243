"""What a library's error says, fit for a sentence of ours."""

__all__ = ["first_line"]

_LONGEST = 300


def first_line(exc: BaseException) -> str:
    r"""Return the first line of an error, of characters that can be printed.

    >>> first_line(ValueError("no node 'a\x00b'\nat line 3"))
    "no node 'a?b'"
    """
    line = (str(exc).strip() or type(exc).__name__).partition("\n")[0][:_LONGEST]
    return "".join(character if character.isprintable() else "?" for character in line)

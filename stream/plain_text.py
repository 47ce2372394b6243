"""Text that came over the wire, made fit for terminals, pictures and file names."""

import re

__all__ = ["file_word", "plain_text"]

_LONGEST, _LONGEST_WORD = 60, 80


def plain_text(text: object, longest: int = _LONGEST) -> str:
    r"""Return text in printable ASCII, all else as escapes, cut to a length.

    A source may call itself anything: escapes that move a terminal's cursor, newlines that forge a
    line of a table, letters that run backwards.

    >>> plain_text("det\x1b[2J\n0")
    'det\\x1b[2J\\n0'
    """
    escaped = str(text).encode("ascii", "backslashreplace").decode()
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def file_word(text: object) -> str:
    """Return text as a part of a file name: letters, digits, `_`, `.` and `-`; others become `_`.

    >>> file_word("../a b")
    '.._a_b'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(text))[:_LONGEST_WORD]

"""Text from the other side, made safe to print.

A name with control characters can rewrite the terminal, one with bidirectional controls can show `exe.txt` for
`txt.exe`, and one with zero-width characters can pass for another (croc CVE-2023-43620, scp CVE-2019-6109). Each such
character is replaced by its Python escape, `\\x1b` or `\\u202e`, so that it can be seen.
"""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 300  # characters; more than a file system takes as a name, too few to push the rest off the screen

_HIDDEN_CATEGORIES = frozenset(
    {
        "Cc",  # C0, DEL, C1
        "Cf",  # bidirectional controls, zero width, soft hyphen, tags
        "Cs",  # lone surrogates: bytes of a file name that are not UTF-8
        "Cn",  # unassigned: what a terminal does with them is unknown
        "Zl",  # line separator
        "Zp",  # paragraph separator
    }
)

# Letters and marks that are drawn as nothing (Default_Ignorable_Code_Point outside of Cf).
_DRAWN_AS_NOTHING = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def escape(text: str, longest: int = LONGEST_NAME) -> str:
    """`text` on one line, each invisible character in a visible form; cut at `longest` characters of the original."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) in _HIDDEN_CATEGORIES or character in _DRAWN_AS_NOTHING:
        number = ord(character)
        if number < 0x100:
            return f"\\x{number:02x}"
        return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    return character

"""Every path decided in one place: what may come from the other side, and what our own files beside it are called.

A path on the wire is relative, its components parted by '/'. `check_path_untrusted` gives the components or refuses;
whoever opens files passes them, one at a time, to calls that take a directory descriptor and follow no link. Names are
never repaired: two names that are repaired into one, or a repair that makes a new dangerous name, is how peers of this
program were broken. The sender asks the same function, so that a bad name is an error there, before anything is sent.

The rules (tests/vectors/hostile_names.json has the corpus, which only grows):
    relative, at most 4,096 bytes and 32 components of 1 to 255 bytes of UTF-8; no '.', no '..', no empty component
    no control characters (C0, DEL, C1), no line or paragraph separators, no bidirectional controls, no surrogates
    no backslash, no drive letter: separators and roots of other systems
    none of the names that Windows reserves, whatever the extension; no dot or space at the end
    nothing that could be one of our own partials and journals
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Container, Iterable, Sequence

from udpsend.errors import BadPacket, LocalFileError

MAX_COMPONENT_SIZE = 255  # NAME_MAX of the usual file systems, bytes
MAX_PATH_SIZE = 4096
MAX_COMPONENTS = 32

ENCODING = sys.getfilesystemencoding()  # of names: "utf-8", unless the locale wants another one
OTHER_LOCALE = "Set LC_ALL=C.UTF-8, or PYTHONUTF8=1, and try again."

OWN_MARK = ".udpsend-"
PARTIAL_SUFFIX = OWN_MARK + "part"
TREE_SUFFIX = OWN_MARK + "tree"
SUMS_SUFFIX = OWN_MARK + "sums"
JOURNAL_SUFFIX = OWN_MARK + "journal"
TREE_JOURNAL_SUFFIX = OWN_MARK + "treelog"  # as long as the other: names are cut alike beside both

_DRIVE = re.compile(r"[A-Za-z]:")
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension; superscript digits count.
_RESERVED = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
# Nothing else is wrong with these: most names, checked in one step.
_ORDINARY = re.compile(r"[A-Za-z0-9._+@,=#()\[\]~-]{0,199}[A-Za-z0-9_+@,=#()\[\]~-]")
# What makes one of any number of names another than such a one, each between two '/'; what else is reserved has other
# characters, too. A search keeps no state per name. (A possessive match of them all did not either, and let reserved
# names pass in Python 3.11 before 3.11.5: gh-106052.)
_EXTRAORDINARY = re.compile(
    r"[^A-Za-z0-9._+@,=#()\[\]~/-]|\./|/(?:/|[^/]{201}|(?i:con|prn|aux|nul|(?:com|lpt)[0-9])[./])"
)
_OWN = "is one that udpsend uses for unfinished files"
# UAX 9: marks, embeddings, overrides and isolates can show a name as another one ('gpj.exe' as 'exe.jpg').
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def check_path_untrusted(path: object) -> tuple[str, ...]:
    """The components of a path that the other side sent. Raises BadPacket, whose text completes 'its name ...'."""
    if not isinstance(path, str):
        raise BadPacket("is not text")
    if len(path) > MAX_PATH_SIZE:  # before anything that walks over it
        raise BadPacket("is too long")
    components = tuple(path.split("/"))
    if path.startswith("/"):
        raise BadPacket("is an absolute path")
    if len(components) > MAX_COMPONENTS:
        raise BadPacket("is nested too deep")
    for component in components:
        reason = _objection(component)
        if reason:
            raise BadPacket(reason)
    if len(path.encode()) > MAX_PATH_SIZE:
        raise BadPacket("is too long")
    return components


def check_name_untrusted(name: str) -> None:
    """As `check_path_untrusted`, for a single component."""
    if "/" in name:
        raise BadPacket("has a separator in it")
    reason = _objection(name)
    if reason:
        raise BadPacket(reason)


def check_target_untrusted(path: str, target: str, tops: Container[str]) -> None:
    """What the symbolic link at `path` may point to: something in the tree that is sent, whose first level are `tops`.
    Raises BadPacket.

    '..' only at the beginning, where it counts real directories: after a name, which may be a link itself, it could
    lead anywhere, whatever it looks like."""
    components = target.split("/") if len(target) <= MAX_PATH_SIZE else [""]
    depth = path.count("/")
    up = 0
    while up < len(components) and components[up] == "..":
        up += 1
    inside = up < depth or (up == depth and up < len(components) and components[up] in tops)
    if not inside or target.startswith("/"):
        raise BadPacket("is that of a link that leads out of what is sent")
    for component in components[up:]:
        reason = _objection(component) if target != "." else None
        if reason:
            raise BadPacket(f"is that of a link to a name that {reason}")


def are_ordinary(names: Sequence[str]) -> bool:
    """Whether all of these components are allowed, as nearly all are; one step for any number of them."""
    joined = "/".join(["", *names, ""])
    return _EXTRAORDINARY.search(joined) is None and OWN_MARK not in joined.lower()


def twin_keys(names: Sequence[str]) -> Iterable[str]:
    """Equal for names that are one file where case and the form of accents do not count (Unicode 3.13, D145)."""
    joined = "/".join(names)
    if joined.isascii():
        return joined.lower().split("/")
    return (unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()) for name in names)


def check_own_name(name: str) -> str:
    """The name under which a file of this side is offered. Raises LocalFileError where a receiver would refuse it."""
    reason = "contains '/'" if "/" in name else _objection(name)
    if reason:
        remedy = "Rename it, or send a copy."
        if ENCODING != "utf-8" and not name.isprintable():  # bytes that are read as something else there
            remedy = f"The locale has names in {ENCODING}. {OTHER_LOCALE}"
        raise LocalFileError(f"{quote(name)} cannot be sent: its name {reason}. {remedy}")
    return name


def check_can_be_named(paths: Iterable[str]) -> None:
    """Whether files of this side can have the names, which have been looked at already. Raises LocalFileError."""
    for path in () if ENCODING == "utf-8" else paths:
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise LocalFileError(
                f"{quote(path)} cannot be written: the locale has names in {ENCODING}. {OTHER_LOCALE}"
            ) from error


def _objection(component: str) -> str | None:
    """Why this is not the name of a file that we would make, or None."""
    if _ORDINARY.fullmatch(component) and not _RESERVED.fullmatch(component.split(".", 1)[0]):
        return None if OWN_MARK not in component.lower() else _OWN
    if not component:
        return "is empty or has an empty part"
    if component in (".", ".."):
        return "leads out of its directory"
    for character in () if component.isprintable() else component:  # what is not allowed is none of it
        if character in _BIDI_CONTROLS:
            return "contains a bidirectional control character"
        if unicodedata.category(character) in _UNPRINTABLE:
            return "contains a control character or is not valid Unicode"
    if len(component.encode()) > MAX_COMPONENT_SIZE:
        return f"is longer than {MAX_COMPONENT_SIZE} bytes"
    if "\\" in component:
        return "contains a backslash"
    if _DRIVE.match(component):
        return "starts with a drive letter"
    if component[-1] in ". ":
        return "ends with a dot or a space"
    if _RESERVED.fullmatch(component.split(".")[0].rstrip(" ")):
        return "is reserved on Windows"
    if OWN_MARK in component.casefold():
        return _OWN
    return None


def partial_name(name: str) -> str:
    """The hidden file beside `name` in which its bytes land."""
    return _beside(name, PARTIAL_SUFFIX)


def tree_name(name: str) -> str:
    """The hidden directory beside `name` in which several files land, of which `name` is the first."""
    return _beside(name, TREE_SUFFIX)


def journal_name(name: str) -> str:
    """The hidden file beside `name` that says which bytes of the partial are on the disk."""
    return _beside(name, JOURNAL_SUFFIX)


def tree_journal_name(name: str) -> str:
    """The same of the hidden directory: it and a partial of the same name are locked and received each by itself."""
    return _beside(name, TREE_JOURNAL_SUFFIX)


def _beside(name: str, suffix: str) -> str:
    """`.NAME` + suffix; where that is too long for a name, NAME is cut and told apart by its hash."""
    data = name.encode()
    # The longer suffix, so that both are cut alike, and the mark of a journal that is being written anew.
    room = MAX_COMPONENT_SIZE - len(".") - len(JOURNAL_SUFFIX) - len("~")
    if len(data) <= room:
        return f".{name}{suffix}"
    mark = "~" + hashlib.sha256(data).hexdigest()[:16]
    return f".{data[: room - len(mark)].decode(errors='ignore')}{mark}{suffix}"


def quote(text: str) -> str:
    """A name between quotes, safe to print: what is not printable or could deceive is shown as an escape."""
    return "'" + "".join(c if _shows_as_itself(c) else c.encode("unicode_escape").decode() for c in text) + "'"


def _shows_as_itself(character: str) -> bool:
    return character.isprintable() and character not in _BIDI_CONTROLS

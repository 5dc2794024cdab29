"""What interrupted commands have left in a directory: found, measured, and removed when nobody is writing it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator

from msgspec import Struct

from udpsend.files.disk import FLAGS, errors_told, open_directory, status_of
from udpsend.files.journal import NEW_SUFFIX, vouches_for_some
from udpsend.files.names import JOURNAL_SUFFIX, PARTIAL_SUFFIX, SUMS_SUFFIX, TREE_JOURNAL_SUFFIX, TREE_SUFFIX

JOURNALS = {PARTIAL_SUFFIX: JOURNAL_SUFFIX, TREE_SUFFIX: TREE_JOURNAL_SUFFIX}


class Leftover(Struct, frozen=True):
    """A partial, a journal without one, or what was to become a list of sums."""

    name: str
    """Of what was being received, cut if it is very long; or what it is."""
    hidden: str
    """Of the file or directory that is left."""
    size: int
    """Bytes on the disk."""
    in_use: bool
    goes_on: bool
    """Whether another attempt needs less than all. Nothing of a stream is noted in its journal."""


def leftovers(directory: str | os.PathLike[str], clean: bool) -> list[Leftover]:
    """By name. `clean` removes those that are not in use, with their journals. Raises LocalFileError."""
    path = os.fspath(directory)
    where = open_directory(path)
    try:
        with errors_told("list", path):
            found = list(_find(where))
        for leftover in found if clean else ():
            if not leftover.in_use:
                with errors_told("remove", leftover.hidden):
                    _remove(where, leftover.hidden)
        return found
    finally:
        os.close(where)


def _find(where: int) -> Iterator[Leftover]:
    for hidden, name, goes_on in _hidden_names(where):
        status = status_of(where, hidden)
        if status is not None:  # it may be in its place by now
            yield Leftover(name, hidden, _size(where, hidden, status), _is_locked(where, hidden), goes_on)


def _hidden_names(where: int) -> Iterator[tuple[str, str, bool]]:
    """As `Leftover`: hidden, name, goes_on."""
    names = sorted(name for name in os.listdir(where) if name.startswith("."))
    journals = set()
    for name in names:
        for suffix, journal_suffix in JOURNALS.items():
            if name.endswith(suffix):
                stem = name.removesuffix(suffix)
                journals.add(stem + journal_suffix)
                goes_on = suffix == TREE_SUFFIX or _is_vouched_for(where, stem)
                yield name, stem[1:], goes_on
    for name in names:
        if name.endswith(SUMS_SUFFIX):
            yield name, "a list of sums", False
        journal = name.removesuffix(NEW_SUFFIX)
        for suffix in JOURNALS.values():
            if journal.endswith(suffix) and journal not in journals:
                yield name, journal.removesuffix(suffix)[1:], False


def _is_vouched_for(where: int, stem: str) -> bool:
    try:
        return vouches_for_some(where, stem + JOURNAL_SUFFIX)
    except OSError:
        return False


def _is_locked(where: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | FLAGS, dir_fd=where)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(fd)
    return False


def _size(where: int, name: str, status: os.stat_result) -> int:
    size = status.st_blocks * 512
    if stat.S_ISDIR(status.st_mode):
        with contextlib.suppress(OSError):
            for _, _, files, fd in os.fwalk(name, dir_fd=where):
                size += sum(os.stat(file, dir_fd=fd, follow_symlinks=False).st_blocks * 512 for file in files)
    return size


def _remove(where: int, hidden: str) -> None:
    if stat.S_ISDIR(os.stat(hidden, dir_fd=where, follow_symlinks=False).st_mode):
        shutil.rmtree(hidden, dir_fd=where)
    else:
        os.unlink(hidden, dir_fd=where)
    for suffix, journal_suffix in JOURNALS.items():
        if hidden.endswith(suffix):
            journal = hidden.removesuffix(suffix) + journal_suffix
            for name in (journal, journal + NEW_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=where)

"""What interrupted commands have left in a directory: found, measured, and removed when nobody is writing it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator

from msgspec import Struct

from udpsend.errors import LocalFileError
from udpsend.files.disk import DIRECTORY_FLAGS, FLAGS, local_error
from udpsend.files.journal import NEW_SUFFIX, vouches_for_some
from udpsend.files.names import JOURNAL_SUFFIX, PARTIAL_SUFFIX, SUMS_SUFFIX, TREE_JOURNAL_SUFFIX, TREE_SUFFIX, quote

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
    """By name. `clean` removes those that are not in use, with their journals. Raises LocalFileError, OSError."""
    where = _open(directory)
    try:
        found = list(_find(where))
        if clean:
            for leftover in found:
                if not leftover.in_use:
                    _remove(where, leftover.hidden)
        return found
    finally:
        os.close(where)


def _open(directory: str | os.PathLike[str]) -> int:
    name = os.fspath(directory)
    try:
        return os.open(name, DIRECTORY_FLAGS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LocalFileError(f"There is no directory {quote(name)}.") from error
    except OSError as error:
        raise local_error(error, "open the directory", name) from error


def _find(where: int) -> Iterator[Leftover]:
    names = sorted(name for name in os.listdir(where) if name.startswith("."))
    journals = set()
    for name in names:
        for suffix, journal_suffix in JOURNALS.items():
            if name.endswith(suffix):
                stem = name.removesuffix(suffix)
                journals.add(stem + journal_suffix)
                goes_on = suffix == TREE_SUFFIX or _is_vouched_for(where, stem)
                yield Leftover(stem[1:], name, _size(where, name), _is_locked(where, name), goes_on)
    for name in names:
        if name.endswith(SUMS_SUFFIX):
            yield Leftover("a list of sums", name, _size(where, name), _is_locked(where, name), goes_on=False)
        journal = name.removesuffix(NEW_SUFFIX)
        for suffix in JOURNALS.values():
            if journal.endswith(suffix) and journal not in journals:
                stem = journal.removesuffix(suffix)
                yield Leftover(stem[1:], name, _size(where, name), in_use=False, goes_on=False)


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


def _size(where: int, name: str) -> int:
    status = os.stat(name, dir_fd=where, follow_symlinks=False)
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

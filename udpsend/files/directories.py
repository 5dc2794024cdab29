"""Directories below one that was opened: each reached from the one above it, by descriptor, following no link.

Whatever is renamed or swapped for a link meanwhile, nothing outside of the first one is ever opened. The last few
descriptors are kept: the entries of one directory come one after another.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable

from udpsend.files.disk import DIRECTORY_FLAGS

KEPT = 32


class Directories:
    """`top(name)` opens a directory of the first level. Not for several threads at once."""

    def __init__(
        self, root: int, *, make: bool = False, top: Callable[[str], int] | None = None, follow: bool = False
    ) -> None:
        """`make`: those that are missing are made, readable by their owner alone. `follow`: links are, as the user of
        the sending side may want. `root` stays the caller's."""
        self._root = root
        self._make = make
        self._top = top
        self._flags = DIRECTORY_FLAGS if follow else DIRECTORY_FLAGS | os.O_NOFOLLOW
        self._open: OrderedDict[str, int] = OrderedDict()
        self._latest: tuple[str, int] = ("", root)

    def descriptor(self, path: str) -> int:
        """Of the directory `path` ('' is the root), valid until the next call. Raises OSError."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        parent, _, name = path.rpartition("/")
        fd = self._top(name) if not parent and self._top else self._enter(self.descriptor(parent), name)
        self._open[path] = fd
        if len(self._open) > KEPT:
            os.close(self._open.popitem(last=False)[1])
            self._latest = "", self._root
        return fd

    def _enter(self, above: int, name: str) -> int:
        try:
            return os.open(name, self._flags, dir_fd=above)
        except FileNotFoundError:
            if not self._make:
                raise
            os.mkdir(name, 0o700, dir_fd=above)
            return os.open(name, self._flags, dir_fd=above)

    def locate(self, path: str) -> tuple[int, str]:
        """(descriptor of the directory of `path`, its last component): what calls with `dir_fd` take."""
        parent, _, name = path.rpartition("/")
        latest, fd = self._latest
        if parent != latest:
            fd = self.descriptor(parent)
            self._latest = parent, fd
        return fd, name

    def close(self) -> None:
        self._latest = "", self._root
        while self._open:
            os.close(self._open.popitem()[1])

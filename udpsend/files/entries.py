"""One entry of a manifest: a file, a directory or a symbolic link, and what is refused.

    ["f", "photos/a.jpg", 1048576, 420, 1790000000000000000, 123456789]    file: path, size, mode, mtime, version
    ["s", "disk", 1048576, 420, 1790000000000000000, 12345, [[0, 4096]]]   file with holes: and where it has data
    ["d", "photos", 493, 1790000000000000000]                              directory: path, mode, mtime
    ["l", "photos/latest", "a.jpg", 1790000000000000000]                   symbolic link: path, target, mtime

    path      as names.py allows; a directory comes before what is in it, and all that is in it comes in one run
    size      bytes, 0 to 2^62 - 1, also in total
    mode      permission bits, 0 to 0o777; nothing else of a mode is ever sent
    mtime     modification time, nanoseconds since 1970, between -2^62 and 2^62; the nearest of what is beyond
    version   0 to 2^48 - 1: another one says that the file may have changed though its size and time have not
    data      ascending ranges, less than all of it; only these bytes are sent. At most 65,536 ranges in all
    target    as names.py allows for links: it does not lead out of what is sent

Numbers are exact integers of up to 63 bits. A kind that is not known is refused, so that what a later version adds is
never taken for something else.

These are msgspec's: a list of entries is parsed, checked and made in 0.7 µs each, where json and
Python took 4. Their names are checked by whole runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from sys import getsizeof
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct

from udpsend.errors import BadPacket
from udpsend.files.names import (
    MAX_PATH_SIZE,
    are_ordinary,
    check_name_untrusted,
    check_path_untrusted,
    check_target_untrusted,
    twin_keys,
)

MAX_DIRECTORIES = 1 << 19
MAX_HELD = 384 << 20  # bytes of memory for the names of one directory, and as much for the paths of all directories
MAX_NAMED = 100  # of what is skipped, and of pairs of twins
MAX_SIZE = (1 << 62) - 1
MAX_TIME = 1 << 62
MAX_VERSION = (1 << 48) - 1
MODE_BITS = 0o777
MAX_RANGES = 1 << 16  # of data, of all files with holes
LONG_PATH = 700  # characters of a directory: the lengths of paths in it are looked at one by one

Mode = Annotated[int, Meta(ge=0, le=MODE_BITS)]
Time = Annotated[int, Meta(ge=-MAX_TIME, le=MAX_TIME)]


class File(Struct, frozen=True, array_like=True, tag="f", forbid_unknown_fields=True, gc=False):
    path: str
    """Relative, components parted by '/'."""
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    mode: Mode
    mtime_ns: Time
    version: Annotated[int, Meta(ge=0, le=MAX_VERSION)]


class Sparse(File, frozen=True, array_like=True, tag="s", forbid_unknown_fields=True, gc=False):
    """A file with holes."""

    data: tuple[tuple[int, int], ...]

    @property
    def content(self) -> int:
        """Bytes that are sent."""
        return sum(stop - start for start, stop in self.data)

    def check_untrusted(self) -> None:
        """Raises BadPacket."""
        at = -1
        for start, stop in self.data:
            if not at < start < stop <= self.size:
                raise BadPacket("a file of the manifest has its data where it cannot be")
            at = stop
        if self.content >= self.size:
            raise BadPacket("a file of the manifest has no holes, though it should")


class Directory(Struct, frozen=True, array_like=True, tag="d", forbid_unknown_fields=True, gc=False):
    path: str
    mode: Mode
    mtime_ns: Time
    size: ClassVar[int] = 0


class Link(Struct, frozen=True, array_like=True, tag="l", forbid_unknown_fields=True, gc=False):
    path: str
    target: str
    mtime_ns: Time
    size: ClassVar[int] = 0


Entry = File | Sparse | Directory | Link

_DECODER = msgspec.json.Decoder(list[Entry])
encode_entries = msgspec.json.Encoder().encode


def parse_entries_untrusted(value: bytes | list[Any]) -> list[Entry]:
    """JSON, or what it has become. All is checked but the paths and targets, which `Tree` does. Raises BadPacket."""
    try:
        return _DECODER.decode(value) if isinstance(value, bytes) else msgspec.convert(value, list[Entry])
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, and may quote the other side
        raise BadPacket("an entry of the manifest is of an unknown kind, or a field is missing or wrong") from error


def parent_of(entry: Entry) -> str:
    return entry.path.rpartition("/")[0]


class Tree:
    """What was declared so far: parents before children, each directory in one run, no name twice."""

    def __init__(self, twins: list[tuple[str, str]]) -> None:
        self._twins = twins
        self._directories = {"": 0}
        self._parent = ""
        self._names: set[str] = set()  # of the current directory
        self._tops: set[str] = set()
        self._keys: dict[str, str] = {}
        self._held = self._held_paths = 0

    def add_untrusted(self, entries: Sequence[Entry]) -> Iterator[tuple[str, int]]:
        """(directory, index of its first entry) of each run that begins. Raises BadPacket."""
        index = 0
        for parent, group in groupby(entries, parent_of):
            run = list(group)
            try:
                if parent != self._parent:
                    check_path_untrusted(run[0].path)
                    self._enter_untrusted(parent)
                    yield parent, index
                self._add_run_untrusted(parent, run)
            except BadPacket as error:
                raise BadPacket(f"its name {error}") from None
            index += len(run)

    def _add_run_untrusted(self, parent: str, run: list[Entry]) -> None:
        names = [entry.path.rpartition("/")[2] for entry in run]
        if len(parent) > LONG_PATH or not are_ordinary(names):
            for entry, name in zip(run, names, strict=True):
                check_name_untrusted(name)
                if len(entry.path) > LONG_PATH and len(entry.path.encode()) > MAX_PATH_SIZE:  # the rest was looked at
                    raise BadPacket("is too long")
        self._held += sum(map(getsizeof, names))
        if self._held > MAX_HELD:
            raise BadPacket("is in a directory with too many long names")
        keys = dict(zip(twin_keys(names), names, strict=True))
        links = [entry for entry in run if isinstance(entry, Link)]
        if len(keys) == len(run) and self._keys.keys().isdisjoint(keys) and not links:
            self._keys |= keys
            self._names.update(names)
        else:
            for entry, name in zip(run, names, strict=True):
                self._add_name_untrusted(parent, entry, name)
        for entry in run:
            if isinstance(entry, Directory):
                self._held_paths += getsizeof(entry.path)
                if len(self._directories) >= MAX_DIRECTORIES or self._held_paths > MAX_HELD:
                    raise BadPacket("is that of one directory too many")
                self._directories[entry.path] = len(self._directories)

    def _add_name_untrusted(self, parent: str, entry: Entry, name: str) -> None:
        if isinstance(entry, Link):
            check_target_untrusted(entry.path, entry.target, self._tops if parent else self._names)
        if name in self._names:
            raise BadPacket("is there twice")
        self._names.add(name)
        other = self._keys.setdefault(next(iter(twin_keys([name]))), name)
        if other != name and len(self._twins) < MAX_NAMED:
            self._twins.append((f"{parent}/{other}" if parent else other, entry.path))

    def _enter_untrusted(self, parent: str) -> None:
        """The entries of another directory begin. They go through the directories in the order of their entries."""
        number = self._directories.get(parent)
        if number is None:
            raise BadPacket("is in something that is no directory of the offer")
        if number <= self._directories[self._parent]:
            raise BadPacket("comes out of order")
        if not self._parent:
            self._tops = self._names
        self._parent = parent
        self._names = set()
        self._held = 0
        self._keys.clear()

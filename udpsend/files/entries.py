"""One entry of a manifest: a file, a directory or a symbolic link, and what is refused.

    ["f", "photos/a.jpg", 1048576, 420, 1790000000000000000, 123456789]    file: path, size, mode, mtime, version
    ["d", "photos", 493, 1790000000000000000]                              directory: path, mode, mtime
    ["l", "photos/latest", "a.jpg", 1790000000000000000]                   symbolic link: path, target, mtime

    path      as names.py allows; a directory comes before what is in it, and all that is in it comes in one run
    size      bytes, 0 to 2^62 - 1, also in total
    mode      permission bits, 0 to 0o777; nothing else of a mode is ever sent
    mtime     modification time, nanoseconds since 1970, between -2^62 and 2^62
    version   0 to 2^48 - 1: another one says that the file may have changed though its size and time have not
    target    as names.py allows for links: it does not lead out of what is sent

Numbers are exact integers of up to 63 bits. A kind that is not known is refused, so that what a later version adds is
never taken for something else.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from udpsend.errors import BadPacket
from udpsend.files.names import check_name_untrusted, check_path_untrusted, check_target_untrusted, twin_key

MAX_DIRECTORIES = 1 << 19
MAX_TOLD = 100  # skipped files that are named, and pairs of twins
MAX_SIZE = (1 << 62) - 1
MAX_TIME = 1 << 62
MAX_VERSION = (1 << 48) - 1
MODE_BITS = 0o777


class Kind(Enum):
    FILE = "f"
    DIRECTORY = "d"
    LINK = "l"


class Entry(NamedTuple):  # made a million times: a frozen dataclass takes five times as long
    path: str
    """Relative, components parted by '/'."""
    size: int
    mode: int
    mtime_ns: int
    kind: Kind = Kind.FILE
    target: str = ""
    version: int = 0

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]

    def to_list(self) -> list[Any]:
        if self.kind is Kind.FILE:
            return ["f", self.path, self.size, self.mode, self.mtime_ns, self.version]
        if self.kind is Kind.DIRECTORY:
            return ["d", self.path, self.mode, self.mtime_ns]
        return ["l", self.path, self.target, self.mtime_ns]


def entry_of(value: list[Any]) -> Entry:
    """One entry in the form of `to_list`, which was checked before."""
    if value[0] == "f":
        return Entry(value[1], value[2], value[3], value[4], Kind.FILE, "", value[5])
    if value[0] == "d":
        return Entry(value[1], 0, value[2], value[3], Kind.DIRECTORY)
    return Entry(value[1], 0, MODE_BITS, value[3], Kind.LINK, value[2])


def parse_entry_untrusted(value: object) -> Entry:
    """One entry whose numbers and target are checked; `Tree` checks its path. Raises BadPacket."""
    match value:
        case ["f", str(path), int(size), int(mode), int(mtime_ns), int(version)]:
            entry = Entry(path, size, mode, mtime_ns, version=version)
        case ["d", str(path), int(mode), int(mtime_ns)]:
            entry = Entry(path, 0, mode, mtime_ns, Kind.DIRECTORY)
        case ["l", str(path), str(target), int(mtime_ns)]:
            entry = Entry(path, 0, MODE_BITS, mtime_ns, Kind.LINK, target)
        case _:
            raise BadPacket("an entry of the manifest is of an unknown kind or lacks a field")
    _, size, mode, mtime_ns, _, _, version = entry
    if type(size) is bool or type(mode) is bool or type(mtime_ns) is bool or type(version) is bool:
        raise BadPacket("a number in the manifest is none")
    if not 0 <= size <= MAX_SIZE:
        raise BadPacket("a size in the manifest is out of range")
    if not 0 <= mode <= MODE_BITS:
        raise BadPacket("a mode in the manifest is out of range")
    if not -MAX_TIME <= mtime_ns <= MAX_TIME:
        raise BadPacket("a time in the manifest is out of range")
    if not 0 <= version <= MAX_VERSION:
        raise BadPacket("a version in the manifest is out of range")
    return entry


class Tree:
    """What was declared so far: parents before children, each directory in one run, no name twice."""

    def __init__(self, twins: list[tuple[str, str]]) -> None:
        self._twins = twins
        self._directories = {"": 0}
        self._parent = ""
        self._names: set[str] = set()  # of the current directory
        self._tops: set[str] = set()
        self._keys: dict[str, str] = {}

    def add_untrusted(self, entry: Entry) -> bool:
        """Whether it begins the run of another directory. Raises BadPacket."""
        parent, _, name = entry.path.rpartition("/")
        enters = parent != self._parent
        try:
            if not enters:
                check_name_untrusted(name)
                if len(entry.path) > 1000:
                    check_path_untrusted(entry.path)
            else:
                check_path_untrusted(entry.path)
                self._enter_untrusted(parent)
            if entry.kind is Kind.LINK:
                check_target_untrusted(entry.path, entry.target, self._tops if parent else self._names)
            if name in self._names:
                raise BadPacket("is there twice")
            self._names.add(name)
            other = self._keys.setdefault(twin_key(name), name)
            if other != name and len(self._twins) < MAX_TOLD:
                self._twins.append((f"{parent}/{other}" if parent else other, entry.path))
        except BadPacket as error:
            raise BadPacket(f"its name {error}") from None
        if entry.kind is Kind.DIRECTORY:
            if len(self._directories) >= MAX_DIRECTORIES:
                raise BadPacket("the manifest has too many directories")
            self._directories[entry.path] = len(self._directories)
        return enters

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
        self._keys.clear()

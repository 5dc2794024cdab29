"""Which bytes of a partial are there: a small file that only grows, one line at a time.

    a1b2c3d4 udpsend-journal 1 IDENTITY      the first line; IDENTITY is bound to the manifest's, 64 hex digits
    0a554b96 present 0 67108864              these bytes are in the partial, and were flushed before this was written
    52c8e3a1 written 67108864 75497472 BOOT  these were written; believed until the system is started again
    1b7c9d02 checked 17 HASH                 this block (hashing.py) was flushed, and is what the sender read
    77a0c5e3 stale 0 67108864                these bytes are of another offer: something like them may be wanted

Each line opens with the CRC-32 of the rest of it, 8 hex digits. Reading stops at the first line that is incomplete or
does not match: a torn write costs the lines from there on, which costs bytes sent again, and nothing else. Lines that
begin with another word are skipped, so that later versions may add some.

Whoever holds the lock on the partial owns the journal. When most of its lines say little (many small ranges that have
since become few large ones), it is written anew beside itself and renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterable

from msgspec import Struct, field

from udpsend.files.digests import Digests
from udpsend.files.disk import FLAGS, release, sync_content, sync_directory, write_all
from udpsend.files.entries import MAX_SIZE
from udpsend.files.hashing import hash_block_size
from udpsend.files.opening import open_own_file
from udpsend.wire.ranges import MAX_BLOCKS, RangeSet

MAX_JOURNAL_SIZE = 256 << 20  # bytes that are looked at; a journal of ours is a hundredth of that
NEW_SUFFIX = "~"
COMPACT_LINES = 4096  # more lines than this, and four times more than ranges: written anew

_PRESENT = re.compile(rb"present ([0-9]{1,19}) ([0-9]{1,19})")
_WRITTEN = re.compile(rb"written ([0-9]{1,19}) ([0-9]{1,19}) ([0-9a-f-]{1,64})")
_CHECKED = re.compile(rb"checked ([0-9]{1,7}) ([0-9a-f]{64})")
_STALE = re.compile(rb"stale ([0-9]{1,19}) ([0-9]{1,19})")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def make_line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def make_header(identity: str) -> bytes:
    return make_line(f"udpsend-journal 1 {identity}")


def _present_line(start: int, stop: int) -> bytes:
    return make_line(f"present {start} {stop}")


def boot_id() -> str:
    """Another one each time that the system is started; empty where that cannot be known."""
    try:
        with open(BOOT_ID) as file:
            return file.read(64).strip()
    except OSError:
        return ""


class Contents(Struct):
    """What a journal says of [0, size)."""

    present: RangeSet = field(default_factory=RangeSet)
    """Flushed."""
    written: RangeSet = field(default_factory=RangeSet)
    """In the partial, if the system was not started again since: those that are present, too."""
    stale: RangeSet = field(default_factory=RangeSet)
    """In the partial, from another offer."""
    checked: Digests = field(default_factory=Digests)
    """Blocks that were compared, and their hashes."""
    sound: int = 0
    """Bytes of the journal that can be believed."""


def parse_journal(data: bytes, identity: str, size: int, boot: str = "") -> Contents:
    """Never raises: what cannot be believed vouches for nothing. The journal of another manifest says what is stale."""
    found = Contents()
    other = False
    for line in data.splitlines(keepends=True):
        if len(line) < 10 or not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(line[9:-1]):
            break
        text = line[9:-1]
        if found.sound == 0 and line != make_header(identity):
            other = text.startswith(b"udpsend-journal 1 ")
            if not other:
                break
        found.sound += len(line)
        if match := _PRESENT.fullmatch(text):
            found.present.add(int(match[1]), min(int(match[2]), size))
            found.written.add(int(match[1]), min(int(match[2]), size))
        elif match := _WRITTEN.fullmatch(text):
            if boot and match[3].decode() == boot:
                found.written.add(int(match[1]), min(int(match[2]), size))
        elif match := _CHECKED.fullmatch(text):
            if int(match[1]) < MAX_BLOCKS:
                found.checked[int(match[1])] = bytes.fromhex(match[2].decode())
        elif match := _STALE.fullmatch(text):
            found.stale.add(int(match[1]), min(int(match[2]), size))
    if not other:
        return found
    for start, stop in found.written:
        found.stale.add(start, stop)
    return Contents(stale=found.stale)


def vouches_for_all(directory: int, name: str, identity: str, size: int) -> bool:
    """Whether the journal `name` says that all was flushed and compared. Raises OSError."""
    with open(os.open(name, os.O_RDONLY | FLAGS, dir_fd=directory), "rb") as file:
        found = parse_journal(file.read(MAX_JOURNAL_SIZE), identity, size)
    return found.present.covers(0, size) and len(found.checked) == -(-size // hash_block_size(size))


def vouches_for_some(directory: int, name: str) -> bool:
    """Whether the journal `name` says of anything that it is there, whatever it is of. Raises OSError."""
    with open(os.open(name, os.O_RDONLY | FLAGS, dir_fd=directory), "rb") as file:
        return bool(parse_journal(file.read(MAX_JOURNAL_SIZE), "", MAX_SIZE, boot_id()).stale)


class Journal:
    """The journal of one partial. Not for several threads at once."""

    def __init__(self, directory: int, name: str, identity: str, size: int) -> None:
        """Open or make it below the descriptor `directory`. `present` is what it vouches for within [0, size), and
        `usable` what is there besides. Raises LocalFileError, OSError."""
        self._directory = directory
        self._name = name
        self._identity = identity
        self._boot = boot_id()
        self._fd = open_own_file(directory, name)
        try:
            data = os.pread(self._fd, MAX_JOURNAL_SIZE, 0)
            found = parse_journal(data, identity, size, self._boot)
            self.present = found.present
            self.usable = found.written
            self.stale = found.stale
            self.checked = found.checked
            self._noted = RangeSet(found.written)
            self._end = found.sound
            self._lines = data.count(b"\n", 0, self._end)
            os.ftruncate(self._fd, self._end)  # what comes after a torn line would never be read
            if self._end == 0:
                self._begin()
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def there(self) -> RangeSet:
        """All that the partial holds, wanted or not."""
        return RangeSet([*self.usable, *self.stale])

    def _begin(self) -> None:
        """A first line, and what is stale."""
        os.ftruncate(self._fd, 0)
        self._end = self._lines = 0
        stale = [make_line(f"stale {start} {stop}") for start, stop in self.stale]
        self._append([make_header(self._identity), *stale])

    def reset(self) -> None:
        """Vouch for nothing."""
        for ranges in (self.present, self.usable, self.stale, self._noted):
            ranges.clear()
        self.checked.clear()
        self._begin()

    def disbelieve(self, lost: Iterable[tuple[int, int]], block_size: int) -> None:
        """These bytes are not there after all, nor are the blocks that they belong to known. Durable when it returns.
        Raises OSError."""
        for start, stop in lost:
            for ranges in (self.present, self.usable, self._noted):
                ranges.subtract(start, stop)
            for index in range(start // block_size, (stop - 1) // block_size + 1):
                self.checked.pop(index, None)
        self._rewrite([])

    def set_stale(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Vouch for nothing, but that something like what is wanted is there."""
        self.reset()
        for start, stop in ranges:
            self.stale.add(start, stop)
        self._begin()

    def note(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These ranges were written: they survive the end of this process, though not that of the system. Cheap, and
        not durable. Raises OSError."""
        fresh = [gap for start, stop in ranges for gap in self._noted.gaps(start, stop)]
        if not fresh or not self._boot:
            return
        self._append([self._written_line(start, stop) for start, stop in fresh])
        for start, stop in fresh:
            self._noted.add(start, stop)

    def doubt_written(self) -> None:
        """What was not flushed cannot be any more: the kernel reports lost pages once. Raises OSError."""
        for start, stop in list(self._noted):
            for gap in self.present.gaps(start, stop):
                self._noted.subtract(*gap)
        self._rewrite([])

    def _written_line(self, start: int, stop: int) -> bytes:
        return make_line(f"written {start} {stop} {self._boot}")

    def record(self, ranges: Iterable[tuple[int, int]], checked: Iterable[tuple[int, bytes]] = ()) -> None:
        """Vouch for these ranges, too, whose data was flushed already, and for these blocks. Durable when it returns.
        Raises OSError."""
        fresh = [gap for start, stop in ranges for gap in self.present.gaps(start, stop)]
        news = [(index, digest) for index, digest in checked if self.checked.get(index) != digest]
        if not fresh and not news:
            return
        lines = [_present_line(start, stop) for start, stop in fresh]
        lines += [make_line(f"checked {index} {digest.hex()}") for index, digest in news]
        useful = len(self.present) + len(self.checked) + len(self.stale)
        if self._lines + len(lines) > max(COMPACT_LINES, 4 * useful):
            self._rewrite(lines)
        else:
            self._append(lines)
        sync_content(self._fd)
        self.checked.update(news)
        for start, stop in fresh:
            self.present.add(start, stop)
            self._noted.add(start, stop)

    def _append(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        # At our own offset: what a failed write left is written over by the next.
        write_all(self._fd, memoryview(data), self._end)
        self._end += len(data)
        self._lines += len(lines)

    def _rewrite(self, lines: list[bytes]) -> None:
        """All that it says, and `lines`, and nothing twice."""
        fresh = self._name + NEW_SUFFIX
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=self._directory)
        fd = open_own_file(self._directory, fresh)
        release(self._fd)
        self._fd = fd
        self._begin()
        self._append([_present_line(start, stop) for start, stop in self.present])
        if self._boot:
            unflushed = (gap for start, stop in self._noted for gap in self.present.gaps(start, stop))
            self._append([self._written_line(start, stop) for start, stop in unflushed])
        self._append([make_line(f"checked {index} {digest.hex()}") for index, digest in self.checked.items()])
        self._append(lines)
        sync_content(self._fd)
        os.rename(fresh, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        sync_directory(self._directory)

    def remove(self) -> None:
        """Unlink it, and what a rewriting that failed has left; it stays open. A journal without a partial vouches for
        nothing, so failing is no harm."""
        for name in (self._name, self._name + NEW_SUFFIX):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)

    def close(self) -> None:
        release(self._fd)

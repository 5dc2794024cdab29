"""Which bytes of a partial are on the disk: a small file that only grows, one line at a time.

    a1b2c3d4 udpsend-journal 1 IDENTITY      the first line; IDENTITY is the manifest's, 64 hex digits
    0a554b96 present 0 67108864              these bytes are in the partial, and were flushed before this was written

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

from udpsend.files.disk import open_own_file, sync_directory
from udpsend.wire.ranges import RangeSet

MAX_JOURNAL_SIZE = 64 << 20  # bytes that are looked at; a journal of ours is a hundredth of that
NEW_SUFFIX = "~"
COMPACT_LINES = 4096  # more lines than this, and four times more than ranges: written anew

_PRESENT = re.compile(rb"present ([0-9]{1,19}) ([0-9]{1,19})")


def make_line(text: str) -> bytes:
    data = text.encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def make_header(identity: str) -> bytes:
    return make_line(f"udpsend-journal 1 {identity}")


def _present_line(start: int, stop: int) -> bytes:
    return make_line(f"present {start} {stop}")


def parse_journal(data: bytes, identity: str, size: int) -> tuple[RangeSet, int]:
    """The ranges of [0, size) that a journal vouches for, and how many bytes of it are sound. Never raises: what cannot
    be believed, and the journal of another manifest, vouches for nothing and is (RangeSet(), 0)."""
    ranges = RangeSet()
    sound = 0
    for line in data.splitlines(keepends=True):
        if len(line) < 10 or not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(line[9:-1]):
            break
        if sound == 0 and line != make_header(identity):
            break
        sound += len(line)
        match = _PRESENT.fullmatch(line[9:-1])
        if match:
            ranges.add(int(match[1]), min(int(match[2]), size))
    return ranges, sound


class Journal:
    """The journal of one partial. Not for several threads at once."""

    def __init__(self, directory: int, name: str, identity: str, size: int) -> None:
        """Open or make it below the descriptor `directory`. `present` is what it vouches for within [0, size).
        Raises LocalFileError, OSError."""
        self._directory = directory
        self._name = name
        self._identity = identity
        self._fd = open_own_file(directory, name)
        try:
            data = os.pread(self._fd, MAX_JOURNAL_SIZE, 0)
            self.present, self._end = parse_journal(data, identity, size)
            self._lines = data.count(b"\n", 0, self._end)
            os.ftruncate(self._fd, self._end)  # what comes after a torn line would never be read
            if self._end == 0:
                self.reset()
        except BaseException:
            os.close(self._fd)
            raise

    def reset(self) -> None:
        """Vouch for nothing."""
        self.present.clear()
        os.ftruncate(self._fd, 0)
        self._end = self._lines = 0
        self._append([make_header(self._identity)])

    def record(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Vouch for these ranges, too, whose data was flushed already. Durable when it returns. Raises OSError."""
        fresh = [gap for start, stop in ranges for gap in self.present.gaps(start, stop)]
        if not fresh:
            return
        if self._lines + len(fresh) > max(COMPACT_LINES, 4 * len(self.present)):
            self._rewrite(RangeSet([*self.present, *fresh]))
        else:
            self._append([_present_line(start, stop) for start, stop in fresh])
        os.fdatasync(self._fd)
        for start, stop in fresh:
            self.present.add(start, stop)

    def _append(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        done = 0
        while done < len(data):
            # At our own offset: what a failed write left is written over by the next.
            done += os.pwrite(self._fd, data[done:], self._end + done)
        self._end += len(data)
        self._lines += len(lines)

    def _rewrite(self, ranges: RangeSet) -> None:
        fresh = self._name + NEW_SUFFIX
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=self._directory)
        os.close(self._fd)
        self._fd = open_own_file(self._directory, fresh)
        self._end = self._lines = 0
        self._append([make_header(self._identity), *(_present_line(start, stop) for start, stop in ranges)])
        os.fdatasync(self._fd)
        os.rename(fresh, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        sync_directory(self._directory)

    def remove(self) -> None:
        """Unlink it; it stays open. A journal without a partial vouches for nothing, so failing is no harm."""
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._directory)

    def close(self) -> None:
        os.close(self._fd)

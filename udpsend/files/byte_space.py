"""Which file each byte of a transfer belongs to: all files of a manifest, end to end, but for those that are left out.

24 bytes of memory for each file; the rest stays in the manifest's pages.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from udpsend.errors import BadPacket
from udpsend.files.manifest import Manifest


class EntrySet:
    """A set of entry numbers as a bitmap, which is how it is sent."""

    def __init__(self, count: int, bits: bytes | bytearray = b"") -> None:
        self._bits = bytearray(bits) or bytearray(-(-count // 8))

    def add(self, number: int) -> None:
        self._bits[number >> 3] |= 1 << (number & 7)

    def remove(self, number: int) -> None:
        self._bits[number >> 3] &= ~(1 << (number & 7))

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number >> 3] >> (number & 7) & 1)

    def __bool__(self) -> bool:
        return any(self._bits)

    def __len__(self) -> int:
        return sum(byte.bit_count() for byte in self._bits)

    def pack(self) -> bytes:
        return zlib.compress(bytes(self._bits))


def unpack_set_untrusted(data: bytes, count: int) -> EntrySet:
    """What `pack` gave for a manifest of `count` entries. Raises BadPacket."""
    inflate = zlib.decompressobj()
    try:
        bits = inflate.decompress(data, -(-count // 8) + 1)
    except zlib.error as error:
        raise BadPacket("set of entries") from error
    if len(bits) != -(-count // 8) or not inflate.eof or int.from_bytes(bits, "little").bit_length() > count:
        raise BadPacket("set of entries")
    return EntrySet(count, bits)


class ByteSpace:
    """`size` bytes, of the files of `manifest` that are not in `left_out`."""

    def __init__(self, manifest: Manifest, left_out: EntrySet | None = None) -> None:
        self.size = 0
        self._starts = array("Q")  # of each file, or of each range of data of a file with holes
        self._offsets = array("Q")  # in its file
        self._numbers = array("L")
        for number, size in enumerate(manifest.sizes):
            if size and (left_out is None or number not in left_out):
                for first, last in manifest.data.get(number, ((0, size),)):
                    self._starts.append(self.size)
                    self._offsets.append(first)
                    self._numbers.append(number)
                    self.size += last - first

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """What [start, stop) is: (number of the entry, offset in its file, length), in order."""
        starts = self._starts
        index = bisect_right(starts, start) - 1
        while start < stop:
            first = starts[index]
            end = starts[index + 1] if index + 1 < len(starts) else self.size
            last = min(end, stop)
            yield self._numbers[index], self._offsets[index] + start - first, last - start
            start = last
            index += 1

    def ranges(self) -> Iterator[tuple[int, int, int, int]]:
        """(number of the entry, offset in its file, where that starts, and where it stops), in order: one of each file,
        one of each range of data of a file with holes."""
        starts = self._starts
        for index, (number, offset, start) in enumerate(zip(self._numbers, self._offsets, starts, strict=True)):
            yield number, offset, start, starts[index + 1] if index + 1 < len(starts) else self.size

"""The hashes of many blocks, 32 bytes each: in a dict each takes 160, which is 3 MB for 20 GiB."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from udpsend.wire.ranges import DIGEST_SIZE, RangeSet


class Digests(MutableMapping[int, bytes]):
    """Index of a block -> its hash. Takes as much memory as the largest index asks for."""

    def __init__(self) -> None:
        self._indices = RangeSet()
        self._bytes = bytearray()

    def __getitem__(self, index: int) -> bytes:
        if index not in self._indices:
            raise KeyError(index)
        return bytes(self._bytes[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE])

    def __setitem__(self, index: int, digest: bytes) -> None:
        missing = (index + 1) * DIGEST_SIZE - len(self._bytes)
        if missing > 0:
            self._bytes += bytes(missing)
        self._bytes[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE] = digest
        self._indices.add(index, index + 1)

    def __delitem__(self, index: int) -> None:
        if not self._indices.subtract(index, index + 1):
            raise KeyError(index)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self._indices:
            yield from range(start, stop)

    def view(self, start: int, stop: int) -> memoryview:
        """Those of consecutive blocks, end to end. None may be added while it is looked at."""
        return memoryview(self._bytes)[start * DIGEST_SIZE : stop * DIGEST_SIZE]

    def __len__(self) -> int:
        return self._indices.total

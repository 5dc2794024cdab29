"""The digest of a transfer (hashing.py) whose bytes come in order, and maybe without a size."""

from __future__ import annotations

from udpsend.files.hashing import BLOCK_SIZE


class StreamDigest:
    """`block_size` is that of the transfer, if its size is known; else blocks are of 1 MiB, however many."""

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        from blake3 import blake3

        self._new_hasher = blake3
        self._block_size = block_size
        self._block, self._all = blake3(), blake3()
        self._size = 0

    def update(self, view: memoryview) -> None:
        while len(view):
            inside = self._size % self._block_size
            if not inside and self._size:
                self._all.update(self._block.digest())
                self._block = self._new_hasher()
            part = view[: self._block_size - inside]
            self._block.update(part)
            self._size += len(part)
            view = view[len(part) :]

    def digest(self) -> bytes:
        if not self._size:
            return self._all.digest()
        if self._size <= self._block_size:
            return self._block.digest()
        whole = self._all.copy()
        whole.update(self._block.digest())
        return whole.digest()

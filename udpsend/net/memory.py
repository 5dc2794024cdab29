"""Buffers for what may come and mostly does not."""

from __future__ import annotations

import mmap


def untouched(size: int) -> memoryview:
    """`size` zeros that take no memory before they are touched. A bytearray is written over when it is made: 4 MiB for
    each socket."""
    return memoryview(mmap.mmap(-1, size))

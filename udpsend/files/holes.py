"""Where a sparse file has data: only that is sent, hashed and written. The rest reads as zeros at both ends.

A file system that knows no holes says that all is data; then nothing is different from other files.
"""

from __future__ import annotations

import errno
import os

MIN_HOLE = 64 << 10  # bytes: a smaller one is sent as the zeros that it reads as
MAX_LOOKED_AT = 1 << 20  # ranges of one file, a second of system calls: what comes behind them counts as data

Ranges = tuple[tuple[int, int], ...]


def may_have_holes(status: os.stat_result) -> bool:
    return status.st_blocks * 512 + MIN_HOLE <= status.st_size


def data_ranges(fd: int, size: int, limit: int) -> Ranges | None:
    """The ranges of [0, size) that are not holes, at most `limit`: of too many holes the largest are kept. None if
    there are no holes."""
    try:
        holes = _holes(fd, size)
    except (OSError, AttributeError):  # this file system does not tell, or this system cannot ask
        return None
    if len(holes) > limit - 1:
        holes = sorted(sorted(holes, key=lambda hole: hole[0] - hole[1])[: max(limit - 1, 0)])
    if not holes:
        return None
    edges = [0, *(edge for hole in holes for edge in hole), size]
    return tuple((start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop)


def _holes(fd: int, size: int) -> list[tuple[int, int]]:
    holes = []
    at = 0
    for _ in range(MAX_LOOKED_AT):
        try:
            data = min(os.lseek(fd, at, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size  # there is no more
        if data - at >= MIN_HOLE:
            holes.append((at, data))
        if data == size:
            break
        at = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        if at == size:
            break
    return holes

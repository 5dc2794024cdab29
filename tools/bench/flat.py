"""Whether memory and CPU time depend on the size of the file: the same program with a small and a very large one.

Neither file is ever in memory as a whole. The source is nearly empty, with holes too small to be kept as such, and
reads as zeros, which cost sealing and hashing what other bytes cost; the destination is on a tmpfs of its own, from
whose beginning a thread takes back what was written while the end still grows. So both sizes find the same warm memory,
and no disk. The receiver hashes what it writes before that; the file itself is not compared here.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .process import BenchError
from .quiet import Patience
from .report import SampleRow, sample_row
from .rounds import Ready

_PUNCH_HOLE, _KEEP_SIZE = 2, 1  # linux/falloc.h
_KEPT = 256 << 20  # bytes that stay: the program may still read them
_EVERY = 0.05  # seconds
_STEP = 60 << 10  # bytes from one page that is there to the next: holes of 64 KiB are not sent


class _Eraser(threading.Thread):
    """Takes back the beginning of the only large file in a directory while it grows."""

    def __init__(self, directory: Path) -> None:
        super().__init__(name="bench-eraser", daemon=True)
        self._directory = directory
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._done = threading.Event()
        self._erased = 0

    def run(self) -> None:
        while not self._done.wait(_EVERY):
            for path in self._directory.iterdir():
                with suppress(FileNotFoundError):
                    self._erase(path)

    def _erase(self, path: Path) -> None:
        spare = path.stat().st_blocks * 512 - 2 * _KEPT
        if spare <= 0:
            return
        descriptor = os.open(path, os.O_WRONLY)
        try:
            length = ctypes.c_long(spare + _KEPT)
            self._libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_long(self._erased), length)
        finally:
            os.close(descriptor)
        self._erased += length.value

    def stop(self) -> None:
        self._done.set()
        self.join()


@contextmanager
def _tmpfs(parent: Path, size: int) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="flat-", dir=parent))
    options = f"size={2 * size + (1 << 30)}"
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BenchError(f"no tmpfs of its own: {done.stderr.strip()}")
        try:
            yield directory
        finally:
            subprocess.run(["umount", directory], check=False)
    finally:
        directory.rmdir()


def transfer(ready: Ready, size: int, patience: Patience) -> SampleRow:
    """One transfer of `size` bytes. Raises BenchError."""
    patience.wait_for_quiet()
    place, before = ready.place, ready.place.source
    with _tmpfs(place.scratch, size) as directory:
        place.source, place.directory = directory / "source.bin", directory / "to"
        place.directory.mkdir()
        with open(place.source, "wb") as file:
            for at in range(0, size, _STEP):
                os.pwrite(file.fileno(), b"\1", at)
            file.truncate(size)
        eraser = _Eraser(place.directory)
        eraser.start()
        try:
            sample = ready.tool.transfer(place)
            if place.destination.stat().st_size != size:
                raise BenchError("what arrived has another size")
        finally:
            eraser.stop()
            place.source = before
    return sample_row(sample, size)

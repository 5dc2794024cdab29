"""Files and directories from a source to a sink, without a network between them: the harness of the file tests."""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.servers import wait_until
from udpsend.files.existing import Policy
from udpsend.files.hashing import BlockHashes
from udpsend.files.manifest import Announced, Manifest, parse_manifest_untrusted
from udpsend.files.sink import Sink, open_sink
from udpsend.files.source import Source
from udpsend.wire.frames import DATA_HEADER_SIZE
from udpsend.wire.ranges import RangeSet

RECORD = 60_000


def open_source(
    *paths: str | os.PathLike[str], follow: bool = False, exclude: Sequence[str] = (), gitignore: bool = False
) -> Source:
    """A source that was scanned."""
    source = Source(paths, follow=follow, exclude=exclude, gitignore=gitignore)
    try:
        source.scan()
    except BaseException:
        source.close()
        raise
    return source


def content_digest(content: bytes) -> bytes:
    """The digest of a transfer of these bytes."""
    blocks = BlockHashes(len(content), RangeSet())
    blocks.feed(0, memoryview(content))
    return blocks.digest()


def over_the_wire(manifest: Manifest) -> Manifest:
    """What the other side makes of it."""
    parsed = parse_manifest_untrusted(manifest.to_json())
    if isinstance(parsed, Announced):
        parsed = parsed.unpack_untrusted(manifest.pack())
    assert parsed == manifest
    return parsed


def move(source: Source, sink: Sink, limit: int | None = None, rng: random.Random | None = None) -> int:
    """Carry what the sink lacks, at most about `limit` bytes; with `rng` out of order. Returns how many bytes."""
    if sink.left_out:
        assert source.select(sink.left_out) == sink.size
    missing = list(RangeSet(sink.present).gaps(0, sink.size))
    ready = threading.Event()
    source.start(missing, ready.set, sink.known)
    room_again = threading.Event()
    sink.start(room_again.set)
    records = [(at, min(at + RECORD, stop)) for start, stop in missing for at in range(start, stop, RECORD)]
    if rng is not None:
        rng.shuffle(records)
    moved = 0
    for start, stop in records:
        while start < stop and (limit is None or moved < limit):
            ready.clear()
            plaintext = source.read(start, stop)
            if plaintext is None:
                assert ready.wait(30)
                continue
            size = len(plaintext) - DATA_HEADER_SIZE
            room_again.clear()
            while (room := sink.room()) is None:
                assert room_again.wait(30)
                room_again.clear()
            room[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size] = plaintext[DATA_HEADER_SIZE:]
            sink.write(start, size)
            moved += size
            start += size
    return moved


def compare(source: Source, sink: Sink) -> int:
    """Until all is compared: carry hashes to the sink, and once more what differs. Returns how many bytes."""
    moved, given_up = 0, time.monotonic() + 30
    told = sink.known.total
    while told < sink._behind.blocks.count or not sink._behind._finished.is_set():
        assert time.monotonic() < given_up
        sink.room()  # raises what went wrong there
        if source._ahead is not None and source._ahead.failure is not None:
            raise source._ahead.failure
        for index, digest in source.take_hashes(1000):
            sink.compare(index, digest)
            told += 1
        for start, stop in sink.take_differing():
            moved += carry(source, sink, start, stop)
            source.hash_again(start, stop)
        time.sleep(0.001)
    return moved


def carry(source: Source, sink: Sink, start: int, stop: int) -> int:
    """What had been sent before."""
    moved = stop - start
    while start < stop:
        plaintext, room = source.read(start, min(start + RECORD, stop)), sink.room()
        if plaintext is not None and room is not None:
            size = len(plaintext) - DATA_HEADER_SIZE
            room[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size] = plaintext[DATA_HEADER_SIZE:]
            sink.write(start, size)
            start += size
    return moved


def transfer(
    paths: Sequence[Path],
    directory: Path,
    policy: Policy | None = None,
    *,
    change: Callable[[], None] | None = None,
    **options: object,
) -> Path:
    """All of it; `change` is called between the scan and the first byte."""
    source = open_source(*paths, **options)  # type: ignore[arg-type]
    try:
        if change is not None:
            change()
        sink = open_sink(over_the_wire(source.manifest), directory, policy)
        try:
            move(source, sink)
            digest = source.digest()
            source.check_unchanged()
            return sink.finish(digest)
        finally:
            sink.abandon()
    finally:
        source.close()


def interrupted(root: Path, here: Path, part: float, policy: Policy | None = None) -> None:
    """So much of it arrives."""
    source = open_source(root)
    sink = open_sink(source.manifest, here, policy)
    move(source, sink, limit=int(sink.size * part))
    wait_until(lambda: not sink._behind._queue)
    for index, digest in source.take_hashes(1000):
        sink.compare(index, digest)
    sink.abandon()
    source.close()


def make_tree(root: Path, rng: random.Random, files: int = 40) -> Path:
    """Directories, files of all lengths (also none, and more than a block), modes, times and links."""
    directories = [root]
    root.mkdir()
    for number in range(files):
        if rng.random() < 0.3:
            directories.append(
                rng.choice(directories) / rng.choice(["d", "é", "sub dir", "-x", "#"]).join(["", str(number)])
            )
            directories[-1].mkdir()
        path = rng.choice(directories) / f"{rng.choice(['a', 'b ä', '.hidden', '~', 'x' * 100])}{number}"
        size = rng.choice([0, 1, 100, 4096, 65_536, rng.randrange(3_000_000)])
        path.write_bytes(rng.randbytes(size))
        path.chmod(rng.choice([0o644, 0o600, 0o755, 0o444, 0o400]))
        os.utime(path, ns=(0, rng.randrange(1 << 60)))
        if rng.random() < 0.2:
            (path.parent / f"link{number}").symlink_to(rng.choice([path.name, "nowhere", "."]))
    for directory in reversed(directories[1:]):
        os.utime(directory, ns=(0, rng.randrange(1 << 60)))
        directory.chmod(rng.choice([0o755, 0o700, 0o555]))
    return root


def picture(root: Path) -> dict[str, object]:
    """All that a transfer keeps of a directory."""
    seen: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if stat.S_ISLNK(status.st_mode):
            seen[name] = os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            seen[name] = (oct(status.st_mode), status.st_mtime_ns)
        else:
            seen[name] = (oct(status.st_mode), status.st_mtime_ns, path.read_bytes())
    return seen


def contents(root: Path) -> dict[str, bytes | str]:
    """What a transfer keeps on any file system: not everywhere are modes, times and owners."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def unlock(directory: Path) -> None:
    """Read-only directories can be written to again."""
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


def remove(directory: Path) -> None:
    unlock(directory)
    shutil.rmtree(directory)

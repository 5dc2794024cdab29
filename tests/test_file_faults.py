"""Seeded faults at random moments of a transfer of a tree: full disks, quotas, read-only ones, flushes that fail, lost
permissions, a destination that is removed, torn journals and other damage on the disk, a source that changes or gets
shorter, ends of either side. Never a false 'verified', never a traceback, and what had arrived is there in the next
attempt.

UDPSEND_FAULTS sets how many runs; they are the same ones each time, unless UDPSEND_SEED chooses others."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from tests.trees import compare, contents, make_tree, move, open_source, over_the_wire, remove
from udpsend.errors import UdpsendError
from udpsend.files.existing import Policy
from udpsend.files.sink import Sink, open_sink

RUNS = int(os.environ.get("UDPSEND_FAULTS", "1000"))
SEED = int(os.environ.get("UDPSEND_SEED") or 0)


def damage(rng: random.Random, here: Path) -> None:
    """A file that is kept loses its end, or a bit of a journal turns."""
    victims = [path for path in here.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size]
    if not victims:
        return
    victim = rng.choice(victims)
    victim.chmod(0o600)
    data = bytearray(victim.read_bytes())
    if victim.name.endswith("-journal") and rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    victim.write_bytes(data)


def change(rng: random.Random, root: Path) -> None:
    """Somebody works on the source."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    if not files:
        return
    victim = rng.choice(files)
    victim.parent.chmod(0o755)
    victim.chmod(0o600)
    match rng.randrange(5):
        case 4:
            os.truncate(victim, rng.randrange(victim.stat().st_size + 1))
        case 0:
            victim.unlink()
        case 1:
            victim.write_bytes(rng.randbytes(rng.randrange(200_000)))
        case 2:
            with victim.open("ab") as file:
                file.write(b"more")
        case _:
            status = victim.stat()
            data = bytearray(victim.read_bytes() or b"x")
            data[0] ^= 1
            victim.write_bytes(data)
            os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))  # and hides it


def failing_call(rng: random.Random, failing: pytest.MonkeyPatch) -> None:
    """From some call on, one that goes to the disk fails."""
    name, codes = rng.choice(
        [
            ("pwrite", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS]),
            ("open", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EMFILE]),
            ("preadv", [errno.EIO, errno.EACCES, errno.ESTALE]),
            ("fdatasync", [errno.EIO, errno.ENOSPC, errno.EDQUOT]),
            ("rename", [errno.EACCES, errno.EROFS, errno.EIO]),
        ]
    )
    code, left, real = rng.choice(codes), rng.randrange(40), getattr(os, name)

    def fails(*arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    failing.setattr(os, name, fails)


def attempt(rng: random.Random, root: Path, here: Path, *, faults: bool, kept: int = 0) -> tuple[bool, int]:
    """One run of both commands, in which `kept` bytes are there from the last. Whether it ended verified, and how many
    bytes the next one has to find if nothing happens to them."""
    source = sink = None
    removed = False
    failing = pytest.MonkeyPatch()
    try:
        source = open_source(root)
        sink = open_sink(over_the_wire(source.manifest), here, Policy(overwrite=True))
        assert sink.received >= min(kept, sink.size)
        if faults and rng.random() < 0.3:
            failing_call(rng, failing)
        end = rng.random() if faults and rng.random() < 0.5 else 1.0
        shuffled = rng if rng.random() < 0.3 else None
        move(source, sink, limit=None if end == 1.0 else int(sink.size * end), rng=shuffled)
        if faults and rng.random() < 0.05:
            removed = True
            shutil.rmtree(here / ".tree.udpsend-tree", ignore_errors=True)  # into which is written meanwhile
        changed = faults and rng.random() < 0.2
        if changed:
            change(rng, root)
        if end < 1.0 and sink.received < sink.size:
            return False, _noted(sink, removed)
        compare(source, sink)
        digest = source.digest()
        source.check_unchanged()
        before = None if changed else contents(root)
        sink.finish(digest)
        assert before is None or contents(here / "tree") == before
        return True, 0
    except UdpsendError as error:
        print(error)
        return False, _noted(sink, removed)
    finally:
        failing.undo()
        if sink is not None:
            sink.abandon()
        if source is not None:
            source.close()


def _noted(sink: Sink | None, removed: bool) -> int:
    """Bytes that are written, and in the journal."""
    if sink is None or removed or sink._flush_failed:
        return 0
    return sink._partial.journal._noted.total


@pytest.mark.parametrize("run", range(RUNS))
def test_never_a_false_verified(tmp_path: Path, run: int) -> None:
    rng = random.Random(SEED + run)
    root = make_tree(tmp_path / "tree", rng, rng.randrange(1, 12))
    (root / "some").write_bytes(rng.randbytes(rng.randrange(1, 4_000_000)))
    here = tmp_path / "here"
    here.mkdir()
    kept = 0
    for _ in range(rng.randrange(1, 5)):
        before = contents(root)
        verified, kept = attempt(rng, root, here, faults=True, kept=kept)
        if verified or (here / "tree").exists():  # or some of it, which is not removed from what comes next
            kept = 0
            remove(here if verified or rng.random() < 0.5 else here / "tree")
            here.mkdir(exist_ok=True)
        if rng.random() < 0.4:
            kept = 0
            damage(rng, here)
        if rng.random() < 0.3:
            change(rng, root)
        if contents(root) != before:
            kept = 0
    assert attempt(rng, root, here, faults=False)[0] or attempt(rng, root, here, faults=False)[0]
    assert contents(here / "tree") == contents(root)
    assert os.listdir(here) == ["tree"]


@pytest.mark.parametrize("kind", ["a file", "a tree"])
def test_a_file_system_that_has_gone_away_says_so_at_each_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As FUSE does, whose daemon has ended. Both ends have told their reason by then, and are to close the rest."""
    root, here = tmp_path / "root", tmp_path / "here"
    here.mkdir()
    if kind == "a tree":
        root.mkdir()
    for path in [root] if kind == "a file" else [root / "a", root / "b"]:
        path.write_bytes(bytes(3_000_000))
    before = len(os.listdir("/proc/self/fd"))
    source = open_source(root)
    sink = open_sink(over_the_wire(source.manifest), here, Policy())
    move(source, sink, limit=2_000_000)
    real, failed = os.close, []

    def close(fd: int) -> None:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        real(fd)
        if is_file:
            failed.append(fd)
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(os, "close", close)
    sink.abandon()
    source.close()
    monkeypatch.undo()
    assert len(failed) >= 3  # what was read, what was written, and the journal
    assert len(os.listdir("/proc/self/fd")) == before

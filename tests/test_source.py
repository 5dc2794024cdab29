"""The file that is sent: read at any range, hashed beside, and never believed when it changes."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trees import content_digest, open_source
from udpsend.errors import LocalFileError, TransferFailed
from udpsend.files import walk
from udpsend.files.read_ahead import ReadAhead
from udpsend.files.source import Source
from udpsend.wire.frames import DATA_HEADER_SIZE as HEADROOM

MIB = 1 << 20


def make(path: Path, size: int) -> bytes:
    data = bytes(i * 7 + (i >> 8) & 0xFF for i in range(min(size, 4096)))
    data = (data * (size // max(1, len(data)) + 1))[:size]
    path.write_bytes(data)
    return data


def start(opened: Source, *missing: tuple[int, int]) -> None:
    opened.start(missing or [(0, opened.manifest.size)] * (opened.manifest.size > 0), lambda: None)


def read(opened: Source, offset: int, size: int) -> bytes:
    """All of it, waiting for the thread."""
    data = b""
    while len(data) < size:
        view = opened.read(offset + len(data), offset + size)
        if view is None:
            time.sleep(0.001)
        else:
            data += view[HEADROOM:]
    return data


@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB + 17])
def test_reads_ranges_and_hashes(tmp_path: Path, size: int) -> None:
    data = make(tmp_path / "a.bin", size)
    os.chmod(tmp_path / "a.bin", 0o4751)  # noqa: S103 - what must not be passed on
    opened = open_source(tmp_path / "a.bin")
    entry = opened.manifest.file(0)
    assert (entry.path, entry.size, entry.mode) == ("a.bin", size, 0o751)
    assert entry.mtime_ns == (tmp_path / "a.bin").stat().st_mtime_ns
    start(opened)
    for offset in range(0, size, 50_000):
        length = min(50_000, size - offset)
        assert read(opened, offset, length) == data[offset : offset + 50_000]
        assert read(opened, offset, length) == data[offset : offset + 50_000]  # it was lost
    assert opened.digest() == content_digest(data)
    opened.check_unchanged()
    opened.close()
    opened.close()


def test_five_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "data_ranges", lambda *_: None)  # as if there were no holes in it
    size = 5 << 30
    with open(tmp_path / "big", "wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    opened = open_source(str(tmp_path / "big"))
    assert opened.manifest.size == size
    start(opened, (size - 10, size))
    assert read(opened, size - 10, 10) == bytes(7) + b"end"
    opened.close()


@pytest.mark.parametrize("missing", [[(0, 10)], [(5 * MIB, 8 * MIB)], [(MIB, MIB + 7), (3 * MIB, 3 * MIB + 1)], []])
def test_what_is_not_sent_is_hashed_all_the_same(tmp_path: Path, missing: list[tuple[int, int]]) -> None:
    data = make(tmp_path / "a", 8 * MIB)
    opened = open_source(tmp_path / "a")
    opened.start(missing, lambda: None)
    for first, last in missing:
        assert read(opened, first, last - first) == data[first:last]
    assert opened.digest() == content_digest(data)
    opened.close()


def test_memory_is_bounded_and_the_waiting_loop_is_called(tmp_path: Path) -> None:
    make(tmp_path / "a", 32 * MIB)
    opened = open_source(tmp_path / "a")
    ready = threading.Event()
    opened.start([(0, 32 * MIB)], ready.set)
    while opened.read(20 * MIB, 21 * MIB) is None:  # far ahead of what is in memory: all before is passed over
        assert ready.wait(10)
        ready.clear()
    opened.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), "grew"),
        (lambda p: os.truncate(p, 10), "became shorter"),
        (lambda p: os.utime(p, ns=(1, 1)), "changed"),
        (lambda p: p.rename(f"{p}~").parent.joinpath("a").write_bytes(b"other"), "was replaced"),
    ],
    ids=["grown", "shrunk", "touched", "replaced"],
)
def test_a_change_is_told(tmp_path: Path, change: Callable[[Path], object], text: str) -> None:
    make(tmp_path / "a", 1000)
    opened = open_source(tmp_path / "a")
    change(tmp_path / "a")
    with pytest.raises(LocalFileError, match=f"'a' {text}.* while it was sent"):
        opened.check_unchanged()
    opened.close()


def test_another_inode_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was forgotten since, and numbered anew (sshfs, exFAT); what can be resumed is bound to it, all the same."""
    root = tmp_path / "tree"
    root.mkdir()
    data = make(root / "a", 1000)
    opened = open_source(root)
    real = os.fstat

    def renumbered(fd: int) -> os.stat_result:
        status = real(fd)
        times = {name: getattr(status, name) for name in ("st_mtime_ns", "st_ctime_ns")}
        return os.stat_result((status[0], status[1] + 1, *status[2:]), times)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", renumbered)
        start(opened)
        assert opened.digest() == content_digest(data)
        opened.check_unchanged()
    opened.close()
    status = os.stat(root / "a")
    other = os.stat_result((status[0], status[1] + 1, *status[2:]), {"st_ctime_ns": status.st_ctime_ns})
    assert walk.version_of(status) == opened.manifest.file(1).version != walk.version_of(other)


def test_a_change_after_all_was_read_is_told_when_something_was_lost(tmp_path: Path) -> None:
    """The other side would get what was not hashed, and throw all of it away."""
    data = make(tmp_path / "a", 3 * MIB)
    opened = open_source(tmp_path / "a")
    start(opened)
    assert opened.digest() == content_digest(data)
    opened.check_unchanged()
    assert read(opened, 0, 3 * MIB) == data
    (tmp_path / "a").write_bytes(b"x" * 3 * MIB)
    os.utime(tmp_path / "a", ns=(1, 1))
    with pytest.raises(LocalFileError, match="'a' changed while it was sent"):
        opened.read(MIB, MIB + 10)
    opened.close()


def test_removed_or_renamed_is_no_change(tmp_path: Path) -> None:
    data = make(tmp_path / "a", 1000)
    opened = open_source(tmp_path / "a")
    (tmp_path / "a").unlink()
    start(opened)
    assert opened.digest() == content_digest(data)
    opened.check_unchanged()
    opened.close()


def test_a_file_that_shrinks_is_told_when_read_and_when_hashed(tmp_path: Path) -> None:
    make(tmp_path / "a", 3 * MIB)
    opened = open_source(tmp_path / "a")
    os.truncate(tmp_path / "a", MIB + 5)
    start(opened)
    with pytest.raises(LocalFileError, match="became shorter"):
        read(opened, MIB, 10)
    with pytest.raises(LocalFileError, match="became shorter"):
        opened.digest()
    opened.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_file_that_lies_about_its_size_is_told() -> None:
    with pytest.raises(LocalFileError, match=r"'/proc/self/stat' has content, but .* 0\.\n.*through a pipe"):
        open_source("/proc/self/stat")


def test_follows_a_link_that_the_user_names(tmp_path: Path) -> None:
    make(tmp_path / "a", 100)
    (tmp_path / "link").symlink_to("a")
    opened = open_source(tmp_path / "link")
    assert (opened.manifest.name, opened.manifest.size) == ("link", 100)
    opened.check_unchanged()
    opened.close()


def test_refuses_what_is_neither_file_nor_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "sock"))
        for name, text in [
            ("fifo", "a pipe"),
            ("sock", "socket"),
        ]:
            with pytest.raises(LocalFileError, match=text):
                open_source(f"{tmp_path}/{name}")
    with pytest.raises(LocalFileError, match="a device"):
        open_source("/dev/null")


@pytest.mark.parametrize("path", ["missing", "missing/x", "a/x", "a/", "loop", "", "n\0ul"])
def test_refuses_what_is_not_there(tmp_path: Path, path: str) -> None:
    make(tmp_path / "a", 1)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LocalFileError, match=r"^Cannot read '.*': .*\.$"):
        open_source(f"{tmp_path}/{path}" if path else "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_refuses_what_it_may_not_read(tmp_path: Path) -> None:
    make(tmp_path / "a", 1)
    os.chmod(tmp_path / "a", 0)
    with pytest.raises(LocalFileError, match="permission denied"):
        open_source(tmp_path / "a")


def test_refuses_a_name_that_no_receiver_takes(tmp_path: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"aux.txt", b".x.udpsend-part"):
        path = os.fsencode(tmp_path) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(b"x")
        with pytest.raises(LocalFileError, match="cannot be sent") as refusal:
            open_source(os.fsdecode(path))
        assert str(refusal.value).isprintable()


def test_disk_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a", 100)
    opened = open_source(tmp_path / "a")

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    start(opened)
    with pytest.raises(LocalFileError, match="Cannot read 'a': the disk reports an input/output error"):
        read(opened, 0, 10)
    with pytest.raises(LocalFileError, match="input/output error"):
        opened.digest()
    opened.close()


def test_short_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(tmp_path / "a", 1000)
    opened = open_source(tmp_path / "a")
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: real(fd, [views[0][:7]], offset))
    start(opened)
    assert read(opened, 0, 1000) == data
    opened.close()


def test_closing_ends_the_thread_and_the_wait(tmp_path: Path) -> None:
    make(tmp_path / "a", 32 * MIB)
    opened = open_source(tmp_path / "a")
    start(opened)  # nobody takes what is read, so it stops when its buffers are full
    opened.close()
    with pytest.raises(TransferFailed, match="stopped"):
        opened.digest()
    never = open_source(tmp_path / "a")
    never.close()
    with pytest.raises(ValueError, match="before start"):
        never.digest()


def test_an_error_of_ours_in_the_thread_is_raised_to_who_waits() -> None:
    def fail(offset: int, view: memoryview) -> None:
        raise ZeroDivisionError

    thread = ReadAhead(10, fail, [(0, 10)], lambda: None, lambda: None)
    with pytest.raises(ZeroDivisionError):
        thread.digest()
    assert thread.stop(10)


def test_modes_never_carry_more_than_permissions(tmp_path: Path) -> None:
    make(tmp_path / "a", 1)
    os.chmod(tmp_path / "a", 0o7777)  # noqa: S103 - what must not be passed on
    opened = open_source(tmp_path / "a")
    assert opened.manifest.file(0).mode == 0o777
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o7777
    opened.close()

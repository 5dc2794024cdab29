"""Systems that lack what Linux has: a transfer over loopback in a process that looks like one of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from udpsend.errors import LocalFileError
from udpsend.files.opening import open_own_file

MACOS = """
import errno, fcntl, os, select, selectors, socket, sys
import ifaddr  # on macOS it takes ctypes.macholib, which Debian's Python is without

sys.platform = "darwin"
for module, names in (
    (os, ["copy_file_range", "fdatasync", "posix_fadvise", "posix_fallocate", "sched_getaffinity", "sendfile"]),
    (os, ["SEEK_DATA", "SEEK_HOLE"]),  # OpenBSD
    (fcntl, ["F_SETPIPE_SZ", "F_GETPIPE_SZ"]),
    (select, ["epoll", *(name for name in dir(select) if name.startswith("EPOLL"))]),
    (selectors, ["EpollSelector"]),
):
    for name in names:
        delattr(module, name)
selectors.DefaultSelector = selectors.PollSelector

setsockopt, getsockopt = socket.socket.setsockopt, socket.socket.getsockopt


def set_option(sock, level, option, *value):
    if (level, option) in ((socket.SOL_SOCKET, socket.SO_RCVBUF), (socket.SOL_SOCKET, socket.SO_SNDBUF)):
        if value[0] > 2 << 20:  # kern.ipc.maxsockbuf of FreeBSD
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    return setsockopt(sock, level, option, *value)


def get_option(sock, level, option, *length):
    if (level, option) in ((socket.IPPROTO_IP, 14), (socket.IPPROTO_IPV6, 24)):
        return 0  # IP_MULTICAST_VIF, IPV6_2292RTHDR
    return getsockopt(sock, level, option, *length)


socket.socket.setsockopt, socket.socket.getsockopt = set_option, get_option
"""
WINDOWS = """
import click, os, sys

os.supports_dir_fd = set()
for name in ("fcntl", "termios", "resource", "pwd", "grp"):
    sys.modules[name] = None
"""
TRANSFER = """
import sys
from concurrent.futures import ThreadPoolExecutor
import udpsend

what, where = sys.argv[1:]
config = udpsend.Config(bind=BIND, brokers=(), stun_servers=(), timeout=20)
code = "4821-" + "-".join(os.urandom(2).hex() for _ in range(3))
with ThreadPoolExecutor(1) as pool:
    sent = pool.submit(udpsend.send, what, code=code, config=config)
    print(udpsend.receive(code, where, delta=True, config=config))
    sent.result(20)
"""


def run(program: str, *arguments: str | Path) -> str:
    environment = {**os.environ, "UDPSEND_LAN_INTERFACES": "127.0.0.1"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("is_tree", [False, True])
def test_macos(tmp_path: Path, is_tree: bool) -> None:
    """Nothing could be sent or received there: no fdatasync, no posix_fadvise, and buffers that are refused."""
    there = tmp_path / "there"
    there.mkdir()
    content = os.urandom(3_000_000)
    (tmp_path / "content").write_bytes(content)
    what = tmp_path / "content"
    if is_tree:
        what = tmp_path / "tree"
        what.mkdir()
        (tmp_path / "content").rename(what / "content")
        (what / "link").symlink_to("content")
        with (what / "sparse").open("wb") as file:
            file.truncate(1 << 20)
        (there / "tree").mkdir()
    old = there / "tree/content" if is_tree else there / "content"
    old.write_bytes(content[:2_000_000])  # a part of it is there: copied
    run(MACOS + TRANSFER.replace("BIND", repr("127.0.0.1")), what, there)
    assert old.read_bytes() == content
    if is_tree:
        assert (there / "tree/sparse").stat().st_size == 1 << 20
        assert (there / "tree/link").readlink() == Path("content")


def test_what_the_interface_takes_is_not_known_elsewhere() -> None:
    """Options of other systems with the numbers of Linux's were asked: datagrams of -48 bytes over IPv6."""
    program = """
from udpsend.net.udp import UdpEndpoint
endpoint = UdpEndpoint()
print(endpoint.max_datagram_size(("::1", 9)), endpoint.max_datagram_size(("127.0.0.1", 9)), endpoint.receive_buffer)
endpoint.close()
"""
    ipv6, ipv4, buffer = map(int, run(MACOS + program).split())
    assert (ipv6, ipv4) == (1452, 1472)
    assert buffer > 0


def test_freebsd_has_too_many_links_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LocalFileError, match="is in the way, and is not a file of yours"):
        open_own_file(0, ".content.udpsend-part")


@pytest.mark.parametrize(
    "words", [["send", "."], ["recv", "4821-marble-otter"], ["partials"], ["verify", "sums.b3"], ["verify", "--help"]]
)
def test_windows_is_told(words: list[str]) -> None:
    """It was a bug: there is no module fcntl. What is asked without files works."""
    status = 0 if "--help" in words else 2
    program = f"""
from udpsend.cli import main
assert main({words}) == {status}
"""
    command = [sys.executable, "-c", WINDOWS + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert status == 0 or "cannot open files relative to a directory" in done.stderr


def test_windows_imports_the_package() -> None:
    program = """
import udpsend

udpsend.Config(), udpsend.errors, udpsend.events
try:
    udpsend.send
except udpsend.errors.UsageError as error:
    print(error)
"""
    assert "Windows" in run(WINDOWS + program)

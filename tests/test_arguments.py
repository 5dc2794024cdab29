"""A developer's mistakes in what `send`, `receive` and `Config` are given: each is told at once, by its name."""

from __future__ import annotations

import io
import os
import resource
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import udpsend
from udpsend.config import Config
from udpsend.errors import LocalFileError, UsageError
from udpsend.rendezvous.code import generate_code

CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), port_mapping=False, timeout=20)
CODE = "4821-marble-otter"


class Raw(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"content"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    Path("content").write_text("content")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(
            ({"paths": paths}, "paths")
            for paths in (None, 5, b"content", [b"content"], [None], [Raw()], io.BytesIO(b"x"))
        ),
        *(({"stream": stream}, "stream") for stream in (io.BytesIO(), "0", 0.0)),
        *(({"stream": 0, "name": name}, "name") for name in (None, b"name", 5)),
        *(({"text": text}, "text") for text in (b"text", 5)),
        *(({"paths": "content", "code": code}, "code") for code in (b"code", 4821)),
        *(({"paths": "content", "exclude": exclude}, "exclude") for exclude in (None, b"*", [5])),
        ({"paths": "content", "config": {}}, "config"),
        ({"paths": "content", "config": Config}, "config"),
        *(({"paths": "content", name: 5}, name) for name in ("on_event", "confirm", "read_text", "cancel")),
    ],
)
def test_send(given: dict[str, Any], name: str) -> None:
    """Some failed deep inside, some when the other side had come."""
    with pytest.raises(UsageError, match=f"{name} is of the type"):
        udpsend.send(**{"config": CONFIG, **given})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(({"code": code}, "code") for code in (None, b"code", 4821)),
        *(({"directory": directory}, "directory") for directory in (None, b".", 5, Raw())),
        *(({"stream": stream}, "stream") for stream in (io.BytesIO(), "1")),
        *(({name: 5}, name) for name in ("on_event", "confirm", "read_text", "accept", "config", "cancel")),
    ],
)
def test_receive(given: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is of the type") as told:
        udpsend.receive(**{"code": CODE, "config": CONFIG, **given})
    assert "4821" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("brokers", "stun_servers") for value in ("mqtt://x", None)),
        ("brokers", (1,)),
        ("stun_servers", (b"x:1",)),
        *((field, value) for field in ("lan", "port_mapping", "offload", "background") for value in (None, 1, "no")),
        *((field, value) for field in ("relay", "bind") for value in (5, b"x")),
        *((field, value) for field in ("timeout", "limit", "max_datagram_size") for value in ("5", True, b"5")),
        ("max_datagram_size", 1400.5),
        ("timeout", None),
    ],
)
def test_config(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{field} is of the wrong type: expected"):
        Config(**{field: value})


@pytest.mark.parametrize("number", [-1, 999_999, 1 << 70])
def test_no_descriptor(number: int) -> None:
    with pytest.raises(LocalFileError, match="Cannot read"):
        udpsend.send(stream=number, config=CONFIG)
    with pytest.raises(LocalFileError, match="Cannot write"):
        udpsend.receive(CODE, stream=number, config=CONFIG)


def test_one_thing_is_sent() -> None:
    """A stream and a text were 'Nothing to send'."""
    with pytest.raises(UsageError, match=r"^Nothing to send"):
        udpsend.send(config=CONFIG)
    with pytest.raises(UsageError, match=r"^Send paths, or a stream"):
        udpsend.send(stream=0, text="text", config=CONFIG)
    with pytest.raises(UsageError, match=r"^Send paths, or a stream"):
        udpsend.send("content", stream=0, config=CONFIG)


def test_a_descriptor_that_is_open_for_the_other_way() -> None:
    """It was told when the other side had come and said yes."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(LocalFileError, match="open for writing only"):
            udpsend.send(stream=writing, config=CONFIG)
        with pytest.raises(LocalFileError, match="open for reading only"):
            udpsend.receive(CODE, stream=reading, config=CONFIG)
    finally:
        os.close(reading)
        os.close(writing)


def test_one_pattern_is_one() -> None:
    """A text is a sequence of texts, too; it failed when the other side had come."""
    Path("tree").mkdir()
    Path("tree/kept").write_text("content")
    Path("tree/left.tmp").write_text("content")
    Path("there").mkdir()
    code = generate_code(secrets.token_bytes)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(udpsend.send, "tree", exclude="*.tmp", code=code, config=CONFIG)
        udpsend.receive(code, "there", config=CONFIG)
        sent.result(20)
    assert os.listdir("there/tree") == ["kept"]


@pytest.fixture
def many_files_open() -> Iterator[None]:
    """So that the next descriptors are ones that select does not take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2048:
        pytest.skip("no more files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_that_may_not_have_more_files_open() -> None:
    """It was an OSError, which is no UdpsendError."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, before[1]))  # one more: the first socket
    try:
        with pytest.raises(LocalFileError, match="may not have more files open"):
            udpsend.receive(CODE, config=CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_that_may_not_have_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thread is that of the events: it was a RuntimeError."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LocalFileError, match="more threads"):
        udpsend.send("content", config=CONFIG, on_event=print)
    with pytest.raises(LocalFileError, match="more threads"):
        udpsend.receive(CODE, config=CONFIG, on_event=print)


@pytest.mark.usefixtures("many_files_open")
def test_streams_of_a_process_with_many_files() -> None:
    """'filedescriptor out of range in select()'"""
    (from_pipe, to_send), (received, to_pipe) = os.pipe(), os.pipe()
    code = generate_code(secrets.token_bytes)
    content = b"content" * 20_000
    with ThreadPoolExecutor(2) as pool, open(received, "rb") as reader:

        def write() -> None:
            with open(to_send, "wb") as file:
                file.write(content)

        threading.Thread(target=write, daemon=True).start()
        read = pool.submit(reader.read)
        sent = pool.submit(udpsend.send, stream=from_pipe, code=code, config=CONFIG)
        try:
            udpsend.receive(code, stream=to_pipe, config=CONFIG)
        finally:
            os.close(to_pipe)
        assert sent.result(20).size == len(content)
        assert read.result(20) == content
    os.close(from_pipe)

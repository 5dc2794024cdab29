"""Who waits is told for what, where it takes long; is not asked about what cannot be taken; and may say yes when the
session is over, where nothing stays open, and the next attempt works."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import udpsend
from udpsend import receiving, shell
from udpsend.caller import Caller
from udpsend.config import Config
from udpsend.errors import Cancelled, LocalFileError, Refused, UdpsendError
from udpsend.events import Accepted, Event, NoRoom, Offered, OfferLate, Preparing
from udpsend.files.sink import open_sink
from udpsend.files.source import Source
from udpsend.rendezvous.code import Code, generate_code, parse_code
from udpsend.sending import Sending

WAIT = 20.0
CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=WAIT)


@pytest.fixture(autouse=True)
def _on_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")


def send_in_a_thread(path: Path, code: Code) -> tuple[Sending, threading.Thread]:
    source = Source([path])
    sending = Sending(code, CONFIG, Caller(), source)

    def send() -> None:
        try:
            sending.run()
        except UdpsendError:  # told at the other end, which is looked at
            pass
        finally:
            source.close()

    thread = threading.Thread(target=send)
    thread.start()
    return sending, thread


def test_both_sides_are_told_that_the_sender_still_goes_through_its_files(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "LATE", 0.0)
    (tmp_path / "content").write_bytes(b"content")
    code = generate_code(secrets.token_bytes)
    told: dict[str, list[Event]] = {"sender": [], "receiver": []}
    are_told = threading.Barrier(3)  # both, and who goes through the files
    scan = Source.scan

    def scan_when_told(source: Source) -> None:
        are_told.wait(WAIT)
        scan(source)

    def look(role: str, event: Event) -> None:
        told[role].append(event)
        if isinstance(event, OfferLate):
            are_told.wait(WAIT)

    monkeypatch.setattr(Source, "scan", scan_when_told)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(
            udpsend.send, tmp_path / "content", code=code, config=CONFIG, on_event=partial(look, "sender")
        )
        udpsend.receive(code, here, config=CONFIG, on_event=partial(look, "receiver"))
        sent.result(WAIT)
    for events in told.values():
        assert [type(event) for event in events if isinstance(event, OfferLate | Offered)] == [OfferLate, Offered]


def test_the_receiver_is_told_that_its_disk_is_what_is_waited_for(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "LATE", 0.0)
    (tmp_path / "content").write_bytes(b"content")
    code = parse_code(generate_code(secrets.token_bytes))
    told: list[Event] = []
    is_told = threading.Event()

    def open_when_told(*arguments: Any) -> Any:
        assert is_told.wait(WAIT)
        return open_sink(*arguments)

    def look(event: Event) -> None:
        told.append(event)
        if isinstance(event, Preparing):
            is_told.set()

    monkeypatch.setattr(receiving, "open_sink", open_when_told)
    _, thread = send_in_a_thread(tmp_path / "content", code)
    udpsend.receive(code.text, here, config=CONFIG, on_event=look)
    thread.join(WAIT)
    assert [type(event) for event in told if isinstance(event, Preparing | Accepted)] == [Preparing, Accepted]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "Cannot write into the directory '{}': permission denied; check who owns it and its mode."),
        (errno.ENOSYS, "Cannot open the directory '{}': Function not implemented."),
    ],
)
def test_that_no_file_could_be_put_there_is_told_before_anybody_comes(
    error: int | None, why: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(descriptor: int) -> os.statvfs_result:
        if error is not None:  # a FUSE file system that says nothing of itself
            raise OSError(error, os.strerror(error))
        return statvfs(descriptor)

    statvfs = os.fstatvfs
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "fstatvfs", ask)
    cancel = threading.Event()
    told: list[str] = []

    def look(event: Event) -> None:
        if isinstance(event, NoRoom):
            told.append(event.reason)
            cancel.set()

    with pytest.raises(Cancelled):
        udpsend.receive("4821-marble-otter", here, config=CONFIG, on_event=look, cancel=cancel)
    assert told == [why.format(here)]


def test_nobody_is_asked_about_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"content")
    directory = tmp_path / "there"
    directory.mkdir()
    (directory / "content").write_bytes(b"mine")
    code = parse_code(generate_code(secrets.token_bytes))
    _, thread = send_in_a_thread(tmp_path / "content", code)
    asked = []

    def accept(offered: Offered) -> bool:
        asked.append(offered)
        return True

    with pytest.raises(LocalFileError, match="'content' exists already"):
        udpsend.receive(code.text, directory, accept=accept, config=CONFIG)
    thread.join(WAIT)
    assert asked == []
    assert [path.name for path in directory.iterdir()] == ["content"]


@pytest.mark.parametrize("name", ["there", "fresh"])
def test_nobody_is_asked_about_a_stream_whose_name_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    code = parse_code(generate_code(secrets.token_bytes))
    reader, writer = os.pipe()
    os.close(writer)

    def send() -> None:
        with contextlib.suppress(UdpsendError):
            udpsend.send(stream=reader, name=name, code=code.text, config=CONFIG)

    thread = threading.Thread(target=send)
    thread.start()
    asked = []

    def accept(offered: Offered) -> bool:
        asked.append(offered.name)
        return True

    with pytest.raises(LocalFileError) if name == "there" else contextlib.nullcontext():
        udpsend.receive(code.text, tmp_path, accept=accept, config=CONFIG)
    thread.join(WAIT)
    os.close(reader)
    assert asked == ([] if name == "there" else ["fresh"])


def test_yes_after_the_sender_has_gone(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"content" * 1000)
    directory = tmp_path / "there"
    directory.mkdir()
    code = parse_code(generate_code(secrets.token_bytes))
    sending, thread = send_in_a_thread(tmp_path / "content", code)
    before = set(threading.enumerate())
    is_over = threading.Event()

    def accept(offered: Offered) -> bool:
        sending.driver.call_soon(sending.interrupted)
        assert is_over.wait(WAIT)
        return True

    with pytest.raises(Refused):
        udpsend.receive(code.text, directory, accept=accept, config=CONFIG)
    thread.join(WAIT)
    is_over.set()
    for left in set(threading.enumerate()) - before:
        left.join(WAIT)
        assert not left.is_alive(), left
    assert not list(directory.iterdir())

    code = parse_code(generate_code(secrets.token_bytes))
    _, thread = send_in_a_thread(tmp_path / "content", code)
    assert udpsend.receive(code.text, directory, config=CONFIG).size == 7000
    thread.join(WAIT)

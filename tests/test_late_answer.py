"""The user of the receiving side says yes when the session is over: nothing stays open, and the next attempt works."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import pytest

import udpsend
from udpsend.config import Config
from udpsend.errors import Cancelled, Refused
from udpsend.events import Offered
from udpsend.files.source import Source
from udpsend.rendezvous.code import Code, generate_code, parse_code
from udpsend.sending import Sending

WAIT = 20.0
CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=WAIT)


def send_in_a_thread(path: Path, code: Code) -> tuple[Sending, threading.Thread]:
    source = Source([path])
    sending = Sending(code, CONFIG, None, None, source)

    def send() -> None:
        try:
            sending.run()
        except Cancelled:
            pass
        finally:
            source.close()

    thread = threading.Thread(target=send)
    thread.start()
    return sending, thread


def test_yes_after_the_sender_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
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

"""A program that embeds the library stops what runs in another of its threads."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import udpsend
from udpsend.config import Config
from udpsend.errors import Cancelled, Refused
from udpsend.events import Accepted, CodeReady, Event, Offered, PeerMet, Progress, Verified
from udpsend.net.udp import UdpEndpoint
from udpsend.rendezvous.code import generate_code

WAIT = 20.0
CONFIG = Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=WAIT)
SLOW = Config(bind="127.0.0.1", brokers=(), stun_servers=(), timeout=WAIT, limit=2e6)
SIZE = 20_000_000

pytestmark = pytest.mark.usefixtures("no_leaks")

Run = Callable[..., Future[Verified]]
both_roles = pytest.mark.parametrize("role", ["send", "receive"])


@pytest.fixture(name="run")
def both_sides(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """What becomes of this role's side: both have one code."""
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    content = tmp_path / "content"
    content.write_bytes(secrets.token_bytes(SIZE))
    code = generate_code(secrets.token_bytes)
    with ThreadPoolExecutor(2) as pool:

        def start(role: str, **options: Any) -> Future[Verified]:
            options = {"config": CONFIG, **options}
            if role == "send":
                return pool.submit(udpsend.send, content, code=code, **options)
            return pool.submit(udpsend.receive, code, here, **options)

        yield start
    for thread in threading.enumerate():
        if thread.name.startswith("udpsend-"):  # it hands over its result, the call returns, and then it ends
            thread.join(WAIT)


def cancel_at(kind: type[Event]) -> dict[str, Any]:
    cancel = threading.Event()

    def look(event: Event) -> None:
        if isinstance(event, kind) and not (isinstance(event, Progress) and not event.done):
            cancel.set()

    return {"on_event": look, "cancel": cancel}


def other(role: str) -> str:
    return "receive" if role == "send" else "send"


@both_roles
def test_before_it_begins(run: Run, role: str) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="Stopped"):
        run(role, cancel=cancel).result(WAIT)


@both_roles
def test_while_nobody_comes(run: Run, role: str) -> None:
    with pytest.raises(Cancelled, match="Stopped"):
        run(role, **cancel_at(CodeReady)).result(WAIT)


@both_roles
def test_while_no_path_is_found(run: Run, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdpEndpoint, "send", lambda endpoint, transmit: None)
    left = run(other(role))
    with pytest.raises(Cancelled, match="Stopped"):
        run(role, **cancel_at(PeerMet)).result(WAIT)
    with pytest.raises(Refused, match="The other side stopped the transfer"):
        left.result(WAIT)


@both_roles
def test_while_the_receiver_thinks(run: Run, role: str) -> None:
    decide = threading.Event()
    options: dict[str, dict[str, Any]] = {"send": {}, "receive": {"accept": lambda _: decide.wait(WAIT)}}
    options[role] |= cancel_at(Offered)
    left = run(other(role), **options[other(role)])
    try:
        with pytest.raises(Cancelled, match="Stopped"):
            run(role, **options[role]).result(WAIT)
        with pytest.raises(Refused, match="The other side stopped the transfer"):
            left.result(WAIT)
    finally:
        decide.set()


@both_roles
def test_what_has_arrived_is_kept(run: Run, role: str, here: Path) -> None:
    left = run(other(role), config=SLOW)
    with pytest.raises(Cancelled, match="What has arrived is kept"):
        run(role, config=SLOW, **cancel_at(Progress)).result(WAIT)
    with pytest.raises(Refused, match="The other side stopped the transfer"):
        left.result(WAIT)
    there: list[int] = []

    def look(event: Event) -> None:
        if isinstance(event, Accepted):
            there.append(event.already)

    sent, received = run("send"), run("receive", on_event=look)
    assert (sent.result(WAIT).size, received.result(WAIT).size) == (SIZE, SIZE)
    assert there[0] > 0
    assert [path.name for path in here.iterdir()] == ["content"]

"""A receiver that speaks the protocol and means harm: the sender says so, and does not wait without end."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import pytest

from udpsend import events
from udpsend.caller import Caller
from udpsend.config import Config
from udpsend.errors import PeerError, UdpsendError
from udpsend.files.existing import Policy
from udpsend.files.in_order import InOrder
from udpsend.files.sink import Sink
from udpsend.files.source import Source
from udpsend.receiving import Receiving
from udpsend.rendezvous.code import generate_code, parse_code
from udpsend.sending import Sending
from udpsend.wire.ranges import RangeSet

CONFIG = Config(brokers=(), stun_servers=(), bind="127.0.0.1", timeout=20)


def _run_to_its_error(receiving: Receiving) -> None:
    with pytest.raises(UdpsendError):
        receiving.run()


class _KnowsTooMuch(Receiving):
    """Of three blocks a thousand."""

    def _accepted(self, sink: Sink | InOrder) -> None:
        self._receiver.accept(sink, sink.size, RangeSet(), b"", RangeSet([(0, 1000)]))


def test_blocks_that_there_are_not_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    (tmp_path / "sent").write_bytes(bytes(3 << 20))
    (tmp_path / "here").mkdir()
    code = parse_code(generate_code(secrets.token_bytes))
    receiving = _KnowsTooMuch(code, CONFIG, Caller(), tmp_path / "here", Policy())

    thread = threading.Thread(target=_run_to_its_error, args=(receiving,))
    thread.start()
    source = Source([tmp_path / "sent"])
    try:
        with pytest.raises(PeerError, match="knows parts"):
            Sending(code, CONFIG, Caller(), source).run()
    finally:
        thread.join(30)
        source.close()
    assert not thread.is_alive()


class _Verifies(Receiving):
    """Something else, and says so as often as it likes."""

    digests: tuple[str, ...] = ()

    def _finished(self, path: Path | None, seconds: float) -> None:
        for digest in self.digests:
            self.connection._out.control.queue({"type": "verified", "digest": digest})


@pytest.mark.parametrize("times", [1, 3])
def test_another_digest_than_that_of_what_was_sent_is_not_believed(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UDPSEND_LAN_INTERFACES", "127.0.0.1")
    (tmp_path / "sent").write_bytes(bytes(3 << 20))
    (tmp_path / "here").mkdir()
    code = parse_code(generate_code(secrets.token_bytes))
    receiving = _Verifies(code, CONFIG, Caller(), tmp_path / "here", Policy())
    receiving.digests = ("ab" * 32,) * times
    thread = threading.Thread(target=_run_to_its_error, args=(receiving,))
    thread.start()
    source = Source([tmp_path / "sent"])
    told: list[events.Event] = []
    try:
        with pytest.raises(PeerError, match="it verified something else"):
            Sending(code, CONFIG, Caller(told.append), source).run()
    finally:
        thread.join(30)
        source.close()
    assert not any(isinstance(event, events.Verified) for event in told)

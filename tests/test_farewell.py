"""The last word of the other side, by which way it may come, is the same error."""

from __future__ import annotations

from typing import Any

import pytest

from udpsend.errors import LocalFileError, NoDirectPath, PeerError, Refused, TransferFailed, UdpsendError
from udpsend.transfer.closing import MAX_TEXT, close_of, error_of, peer_left
from udpsend.wire.frames import Close, CloseCode


@pytest.mark.parametrize("code", CloseCode)
def test_by_mailbox_as_by_datagram(code: CloseCode) -> None:
    there = peer_left({"bye": "The disk is full.", "code": int(code)})
    told = error_of(Close(code, "The disk is full."), is_verified=False)
    assert (type(there), str(there)) == (type(told), str(told))
    assert not isinstance(there, NoDirectPath)


@pytest.mark.parametrize(
    ("error", "here"),
    [(LocalFileError("Full."), TransferFailed), (Refused("No."), Refused), (PeerError("What?"), TransferFailed)],
)
def test_of_every_error(error: UdpsendError, here: type[UdpsendError]) -> None:
    close = close_of(error)
    assert type(peer_left({"bye": close.reason, "code": int(close.code)})) is here


@pytest.mark.parametrize("code", [None, "3", 3.0, -1, 99, True, [], {}])
@pytest.mark.parametrize("text", [None, 5, "", "x" * 5000])
def test_of_what_cannot_be(code: Any, text: Any) -> None:
    error = peer_left({"bye": text, "code": code})
    assert isinstance(error, UdpsendError)
    assert len(str(error)) < MAX_TEXT + 100

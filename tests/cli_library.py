"""A library that is replaced, so that the command line can be tested alone: `udpsend.send` and `udpsend.receive` that
keep what they were called with, tell given events, ask what they are told to ask, and end as they are told."""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import Any

import pytest

import udpsend
from udpsend import events
from udpsend.config import Config

HOSTILE = "\x1b[2Jevil\u202egnp.exe\r\n\x9b\u200b\udc80\x7f"
DIGEST = "ab" * 32
VERIFIED = events.Verified("file.bin", 268_435_456, 0.84, DIGEST)
TELLING: list[events.Event] = [
    events.CodeReady("4821-marble-otter"),
    events.MeetingPlace("mqtt://127.0.0.1:1883", True),
    events.PublicAddress("127.0.0.1:3478", ("127.0.0.1", 40000)),
    events.PeerMet("marble otter tulip"),
    events.PathFound(events.PathKind.LOCAL_NETWORK, ("192.168.1.7", 40123), 0.0004),
    events.Offered("file.bin", 268_435_456),
    events.Accepted(),
    events.Progress(0, 268_435_456),
    events.Progress(134_217_728, 268_435_456),
    events.Progress(268_435_456, 268_435_456),
    events.Verifying(),
    events.Statistics({"datagrams lost": 3, "drops: strangers": 1}),
    VERIFIED,
]


class Library:
    """Stands in for `udpsend.send` and `udpsend.receive`: keeps what it was called with, tells events, ends as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.telling: list[events.Event] = list(TELLING)
        self.ends_with: BaseException | None = None
        self.offer: events.Offered | None = None
        self.phrase: str | None = None
        self.answers: list[bool] = []

    def _call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> events.Verified:
        self.calls.append((name, arguments, keywords))
        for event in self.telling:
            keywords["on_event"](event)
        if self.phrase is not None and keywords["confirm"] is not None:
            self.answers.append(keywords["confirm"](self.phrase))
        if self.offer is not None and keywords["accept"] is not None:
            self.answers.append(keywords["accept"](self.offer))
        if self.ends_with is not None:
            raise self.ends_with
        return VERIFIED

    def send(self, *arguments: Any, **keywords: Any) -> events.Verified:
        return self._call("send", arguments, keywords)

    def receive(self, *arguments: Any, **keywords: Any) -> events.Verified:
        return self._call("receive", arguments, keywords)

    @property
    def keywords(self) -> dict[str, Any]:
        return self.calls[-1][2]

    @property
    def config(self) -> Config:
        config = self.keywords["config"]
        assert isinstance(config, Config)
        return config


@pytest.fixture(name="library")
def replaced_library(monkeypatch: pytest.MonkeyPatch) -> Library:
    stand_in = Library()
    monkeypatch.setattr(udpsend, "send", stand_in.send, raising=False)
    monkeypatch.setattr(udpsend, "receive", stand_in.receive, raising=False)
    return stand_in


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def assert_harmless(text: str) -> None:
    for line in text.split("\n"):
        for character in line:
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(line)

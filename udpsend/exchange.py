"""The texts that people carry between two sides which have no meeting place: each shown when it is due, the other's
asked for, until both sides agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from udpsend import events
from udpsend.caller import OnEvent, ReadText
from udpsend.errors import BadPacket, UsageError
from udpsend.net import clock
from udpsend.session import Session

ADDRESSES_WITHIN = 4.0  # seconds after which a text is made without those that are not known yet


class Ask(Protocol):
    def __call__(self, question: Callable[[], str], then: Callable[[str], None]) -> None: ...


class ManualExchange:
    def __init__(self, session: Session, read_text: ReadText, ask: Ask, emit: OnEvent, now: float) -> None:
        self._session = session
        self._read_text = read_text
        self._put_question = ask
        self._emit = emit
        self._addresses_by = now + ADDRESSES_WITHIN
        self._is_asking = False

    def turn(self, now: float, addresses_known: bool) -> None:
        """Once in each turn of the loop."""
        manual = self._session.manual
        if manual is None:
            return
        number = manual.text_number
        if number is not None:
            if not addresses_known and now < self._addresses_by:
                return
            self._emit(events.TextToCarry(number, manual.take_text()))
            self._session.text_carried(now)
        if manual.due is not None and not self._is_asking:
            self._is_asking = True
            due = manual.due
            self._put_question(lambda: self._ask(due), lambda text: self._told(due, text))

    def _ask(self, number: int) -> str:
        text = self._read_text(number)
        if text is None:
            raise UsageError(f"Text {number} was not given: nobody is left to ask.\nBegin anew on both sides.")
        return text

    def _told(self, number: int, text: str) -> None:
        self._is_asking = False
        manual = self._session.manual
        if manual is None or manual.due != number:
            return
        try:
            manual.text_received(text)
        except BadPacket as error:
            self._emit(events.TextRejected(number, str(error)))
        self._session.text_carried(clock.now())

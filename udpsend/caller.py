"""Whom a session tells what happens, and asks what it cannot know: what `send` and `receive` were given for that."""

from __future__ import annotations

import threading  # noqa: TID251 - a type of what may be given
from collections.abc import Callable

from msgspec import Struct

from udpsend import events

OnEvent = Callable[[events.Event], None]
Confirm = Callable[[str], bool]
Accept = Callable[[events.Offered], bool]
ReadText = Callable[[int], str | None]


class Caller(Struct, frozen=True):
    """Any of them may be missing. None of the functions is called in the loop."""

    on_event: OnEvent | None = None
    confirm: Confirm | None = None
    """Whether the other side shows the same phrase."""
    accept: Accept | None = None
    """Whether to take what is offered, on the receiving side; None takes it."""
    read_text: ReadText | None = None
    """Where people carry texts in place of mailboxes: the other side's text of this number, or None where there is
    nobody to ask any more."""
    cancel: threading.Event | None = None
    """Ends the session when another thread sets it."""

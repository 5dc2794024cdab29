"""What the mailboxes bring, on its way into the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from udpsend.rendezvous.mailbox import MAX_WAITING, Inbox


def test_in_order_and_no_more_than_may_wait() -> None:
    calls: deque[Callable[[], None]] = deque()
    taken: list[bytes] = []
    inbox = Inbox(calls.append, taken.append)
    for number in range(3 * MAX_WAITING):
        inbox.put(b"%d" % number)
    assert len(calls) == MAX_WAITING
    while calls:
        calls.popleft()()
    inbox.put(b"last")
    calls.popleft()()
    assert taken == [*(b"%d" % number for number in range(MAX_WAITING)), b"last"]

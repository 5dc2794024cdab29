"""`send` and `receive`: what a caller has, and where the parts of a session are put together (`sending.py`,
`receiving.py`, `shell.py`)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from udpsend import events
from udpsend.config import Config
from udpsend.errors import LocalFileError, UsageError
from udpsend.exchange import ReadText
from udpsend.files.existing import Policy
from udpsend.files.source import Source
from udpsend.receiving import Accept, Receiving
from udpsend.rendezvous.code import generate_code, parse_code
from udpsend.sending import Sending
from udpsend.shell import Confirm, OnEvent

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def send(
    paths: Paths,
    *,
    code: str | None = None,
    follow: bool = False,
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
) -> events.Verified:
    """Send files and directories to whoever comes with the same code; returns when all is verified there.

    `follow` sends what symbolic links point to in their place; `exclude` are patterns as in .gitignore of what is not
    sent, and `gitignore` has the .gitignore files below the paths say so, too. Without `code` one is made: it comes as
    the first event, CodeReady. `confirm(phrase)` is asked before anything moves whether the other side shows the same
    phrase. What cannot be sent (sockets, what may not be read) comes as the event Skipped, and is counted in what is
    returned. With `read_text` there is no meeting place: people carry the texts of the events TextToCarry to the other
    side, and `read_text(number)` is asked for those from there. Raises a subclass of UdpsendError."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise UsageError("Nothing to send: name a file or a directory.")
    source = Source(given, follow=follow, exclude=exclude, gitignore=gitignore)
    try:
        parsed = parse_code(code if code is not None else generate_code(secrets.token_bytes))
        sending = Sending(parsed, config or Config(), on_event, confirm, source)
        sending.read_text = read_text
        return sending.run()
    finally:
        source.close()


def receive(
    code: str,
    directory: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    rename: bool = False,
    skip_existing: bool = False,
    delta: bool = False,
    accept: Accept | None = None,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
) -> events.Verified:
    """Receive into `directory`; returns when all is verified and in place.

    `accept(offered)` is asked whether to take what is offered; None takes it. Files that exist are an error, unless
    `overwrite` replaces them, `rename` gives what is received another name, or `skip_existing` leaves out those of the
    same size and time; `delta` replaces them, and has only those parts sent that differ. `confirm` as with `send`.
    Raises a subclass of UdpsendError."""
    if not os.path.isdir(directory):
        raise LocalFileError(f"{os.fspath(directory)!r} is no directory. Make it, or name another one.")
    if rename and (overwrite or skip_existing or delta):
        raise UsageError("What gets another name replaces nothing: leave out one of these.")
    policy = Policy(overwrite or delta, rename, skip_existing, delta)
    receiving = Receiving(parse_code(code), config or Config(), on_event, confirm, Path(directory), policy, accept)
    receiving.read_text = read_text
    return receiving.run()

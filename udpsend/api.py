"""`send` and `receive`: what a caller has, and where the parts of a session are put together (`sending.py`,
`receiving.py`, `shell.py`)."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from udpsend import events
from udpsend.arguments import AnyPath, check_directory, check_types, one_or_several_paths, one_or_several_patterns
from udpsend.caller import Accept, Caller, Confirm, OnEvent, ReadText
from udpsend.config import Config
from udpsend.errors import BadPacket, LocalFileError, UsageError
from udpsend.files.descriptors import check_readable, check_writable
from udpsend.files.existing import Policy
from udpsend.files.names import check_name_untrusted
from udpsend.files.offers import MAX_TEXT, Stream, Text
from udpsend.files.source import Source
from udpsend.files.stream_source import StreamSource, descriptor_reader, memory_reader
from udpsend.limits import limits_told
from udpsend.receiving import Receiving
from udpsend.rendezvous.code import generate_code, parse_code
from udpsend.sending import Sending
from udpsend.streaming import Streaming

Paths = AnyPath | Sequence[AnyPath]


@limits_told()
def send(
    paths: Paths = (),
    *,
    stream: int | None = None,
    name: str = "stdin",
    text: str | None = None,
    code: str | None = None,
    follow: bool = False,
    exclude: str | Sequence[str] = (),
    gitignore: bool = False,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
    cancel: threading.Event | None = None,
) -> events.Verified:
    """Send files and directories to whoever comes with the same code; returns when all is verified there. Or, in their
    place, what the descriptor `stream` gives until its end (`name` is for a receiver that makes a file of it), or a
    `text` of at most 64 KiB of UTF-8, which is shown there.

    `follow` sends what symbolic links point to in their place; `exclude` are patterns as in .gitignore, or one, of what
    is not sent, and `gitignore` has the .gitignore files below the paths say so, too. Without `code` one is made: it
    comes as the first event, CodeReady. `confirm(phrase)` is asked before anything moves whether the other side shows
    the same phrase. What cannot be sent (sockets, what may not be read) comes as the event Skipped, and is counted in
    what is returned. With `read_text` there is no meeting place: people carry the texts of the events TextToCarry to
    the other side, and `read_text(number)` is asked for those from there. Setting `cancel`, from any thread, ends it
    within a second: the other side is told, and Cancelled is raised. Raises a subclass of UdpsendError."""
    code = generate_code(secrets.token_bytes) if code is None else code
    check_types(stream=stream, name=name, text=text, code=code, config=config)
    check_types(on_event=on_event, confirm=confirm, read_text=read_text, cancel=cancel)
    given, patterns = one_or_several_paths(paths), one_or_several_patterns(exclude)
    things = bool(given) + (stream is not None) + (text is not None)
    if not things:
        raise UsageError("Nothing to send: name a file or a directory.")
    if things > 1:
        raise UsageError("Send paths, or a stream, or a text.")
    source: Source | StreamSource
    if given:
        source = Source(given, follow=follow, exclude=patterns, gitignore=gitignore)
    else:
        source = _stream_source(stream, name, text or "")
    try:
        parsed = parse_code(code)
        config = config or Config()
        caller = Caller(on_event=on_event, confirm=confirm, read_text=read_text, cancel=cancel)
        if isinstance(source, Source):
            return Sending(parsed, config, caller, source).run()
        return Streaming(parsed, config, caller, source).run()
    finally:
        source.close()


def _stream_source(stream: int | None, name: str, text: str) -> StreamSource:
    if stream is None:
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError("The text has characters that are not valid Unicode.") from error
        if len(content) > MAX_TEXT:
            raise UsageError(f"The text is longer than {MAX_TEXT >> 10} KiB: send it as a file, or through a pipe.")
        return StreamSource(Text(len(content)), memory_reader(content))
    try:
        check_name_untrusted(name)
    except BadPacket as error:
        raise UsageError(f"This name cannot be taken: it {error}.") from error
    check_readable(stream)
    return StreamSource(Stream(name), descriptor_reader(stream))


@limits_told()
def receive(
    code: str,
    directory: AnyPath = ".",
    *,
    stream: int | None = None,
    overwrite: bool = False,
    rename: bool = False,
    skip_existing: bool = False,
    delta: bool = False,
    accept: Accept | None = None,
    config: Config | None = None,
    on_event: OnEvent | None = None,
    confirm: Confirm | None = None,
    read_text: ReadText | None = None,
    cancel: threading.Event | None = None,
) -> events.Verified:
    """Receive into `directory`; returns when all is verified and in place. Or write a file's content, in order, to the
    descriptor `stream`, which is not closed: what was written there before an error cannot be taken back.

    `accept(offered)` is asked whether to take what is offered; None takes it. Files that exist are an error, unless
    `overwrite` replaces them, `rename` gives what is received another name, or `skip_existing` leaves out those of the
    same size and time; `delta` replaces them, and has only those parts sent that differ. `confirm`, `read_text` and
    `cancel` as with `send`. What has arrived when it ends by an error or by `cancel` is kept, and is not sent again
    where the same is received into the same directory. Raises a subclass of UdpsendError."""
    check_types(code=code, stream=stream, accept=accept, config=config)
    check_types(on_event=on_event, confirm=confirm, read_text=read_text, cancel=cancel)
    check_directory(directory)
    if stream is not None and (overwrite or rename or skip_existing or delta):
        raise UsageError("What goes to a stream meets no files that exist: leave out what to do with them.")
    if stream is None and not os.path.isdir(directory):
        raise LocalFileError(f"{os.fspath(directory)!r} is no directory. Make it, or name another one.")
    if rename and (overwrite or skip_existing or delta):
        raise UsageError("What gets another name replaces nothing: leave out one of these.")
    if stream is not None:
        check_writable(stream)
    policy = Policy(overwrite=overwrite or delta, rename=rename, skip=skip_existing, delta=delta)
    caller = Caller(on_event, confirm, accept, read_text, cancel)
    return Receiving(parse_code(code), config or Config(), caller, Path(directory), policy, stream).run()

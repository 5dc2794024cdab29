"""The command line: parse, call `udpsend.send` or `udpsend.receive`, show events, end with an exit code.

1. `commands` parses arguments and environment (click), `options` makes a `Config` of them.
2. `display` turns events into lines and a bar; all output passes through `terminal`, which escapes it (`escape`).
3. `main` here decides what an exception looks like and which exit code it has. No traceback unless -vv asks for it.

Only click is imported before a command runs: `udpsend --help` and completion have to be quick.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from udpsend.cli.collector import paused
from udpsend.cli.commands import cli
from udpsend.cli.terminal import Terminal
from udpsend.errors import Cancelled, UdpsendError
from udpsend.limits import limit_reached, limits_told

BUG = 1
LEAVE_WITHIN = 2.0  # seconds after Ctrl-C, where a transfer is not being ended by it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `arguments` are without the program's name; None: the process's."""
    terminal = Terminal()
    with paused(), _leaving_in_time(), _termination_as_interrupt(), _threads_report_to(terminal):
        try:
            with limits_told():
                status = cli.main(arguments, prog_name="udpsend", standalone_mode=False, obj=terminal)
        except UdpsendError as error:
            terminal.error(_text_of(error))
            terminal.traceback(error)
            return error.exit_code
        except (KeyboardInterrupt, click.Abort):
            terminal.error("Stopped.")
            return Cancelled.exit_code
        except click.ClickException as error:
            terminal.error(_usage_text(error))
            return error.exit_code
        except Exception as error:
            terminal.bug(error)
            return BUG
    return status if isinstance(status, int) else 0


def _text_of(error: UdpsendError) -> str:
    """What to show for an error; one raised without a text still says what its class means."""
    return str(error) or (type(error).__doc__ or type(error).__name__).strip().splitlines()[0]


def _usage_text(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text}\nSee '{context.command_path} --help'." if context is not None else text


@contextmanager
def _threads_report_to(terminal: Terminal) -> Iterator[None]:
    """An exception that nobody catches in a helper thread is told as in the main one: no raw traceback."""

    def report(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
            if (limit := limit_reached(arguments.exc_value)) is None:
                terminal.bug(arguments.exc_value)
            else:
                terminal.error(str(limit))

    previous = threading.excepthook
    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = previous


@contextmanager
def _leaving_in_time() -> Iterator[None]:
    """KeyboardInterrupt ends the command even where standard error takes nothing any more (a terminal that nobody
    reads, which a thread is writing to): then without another word. While `send` and `receive` run, Ctrl-C is theirs.
    """
    alarm = getattr(signal, "setitimer", None)  # not on Windows
    if alarm is None or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(Cancelled.exit_code))
        signal.setitimer(signal.ITIMER_REAL, LEAVE_WITHIN)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGALRM) is not before:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a transfer as Ctrl-C does: the other side is told and what arrived is kept.

    What Ctrl-C does at the moment is asked for when the signal comes: `send` and `receive` have a way of their own.
    A signal that is ignored (SIGHUP under nohup) stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not callable(on_interrupt):  # ignored, as in background jobs of a shell without job control
            raise KeyboardInterrupt
        on_interrupt(number, frame)

    replaced = {}
    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                replaced[number] = signal.signal(number, interrupt)
        yield
    finally:
        for number, previous in replaced.items():
            signal.signal(number, previous)

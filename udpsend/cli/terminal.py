"""Everything that is written to the terminal or read from it.

Standard output carries what a script may want (the code, the command for the other side, the last line); standard
error carries the rest. Each text is escaped here, so that no caller can forget it. A reader that goes away
(`udpsend send x | head -1`) ends the output and not the transfer.

Methods may be called from any thread: the question whether to accept is asked beside the running transfer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from udpsend.cli.escape import escape
from udpsend.errors import LocalFileError, UsageError

LONGEST_LINE = 4096  # bytes read as the answer to a question
LONGEST_OUTPUT = 4000  # characters of one line that is printed
LONGEST_ERROR = 3  # lines


class StatusLine(Protocol):
    """What stands below the lines that are printed: the progress bar."""

    def hide(self) -> None: ...
    def show(self) -> None: ...


class OutputStream:
    """Standard output or error, which never raises for a reader that went away or a disk that is full.

    The stream is looked up at each use, because tests and callers replace `sys.stdout`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.failure: OSError | None = None
        """The first one: nothing is written any more."""
        self._tolerate_any_character()

    @property
    def _stream(self) -> IO[str] | None:
        return getattr(sys, self._name)  # type: ignore[no-any-return]  # None where the process was started without it

    def _tolerate_any_character(self) -> None:
        reconfigure = getattr(self._stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    @property
    def is_open(self) -> bool:
        """Whether the process was started with it."""
        return self._stream is not None

    @property
    def is_terminal(self) -> bool:
        stream = self._stream
        try:
            return stream is not None and stream.isatty()
        except ValueError:  # closed
            return False

    @property
    def columns(self) -> int:
        """How wide the terminal says that it is; 0 for what is none, and for one without a size (serial consoles)."""
        try:
            columns, lines = os.get_terminal_size(self.fileno())
        except (OSError, ValueError):  # no terminal, closed
            return 0
        return columns if lines else 0

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "ascii"

    def can_show(self, text: str) -> bool:
        try:
            text.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def write(self, text: str) -> None:
        stream = self._stream
        if stream is None:
            self.failure = self.failure or OSError(errno.EBADF, "it is closed")
            return
        try:
            stream.write(text)
            stream.flush()
        except ValueError:
            self.failure = self.failure or OSError(errno.EBADF, "it is closed")
        except OSError as error:
            self.failure = self.failure or error
            self._give_up(stream)

    def flush(self) -> None:
        """Nothing is ever held back; tqdm wants the method."""

    def fileno(self) -> int:
        stream = self._stream
        if stream is None:
            raise OSError("no such stream")
        return stream.fileno()

    @staticmethod
    def _give_up(stream: IO[str]) -> None:
        """Point the descriptor to nowhere: otherwise the flush at the interpreter's end fails once more, aloud."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class Terminal:
    """Lines out, answers in. `verbosity`: -1 quiet, 0, 1 (-v: mailboxes, STUN, counters), 2 (-vv: tracebacks)."""

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self.out = OutputStream("stdout")
        self.err = OutputStream("stderr")
        self._status: StatusLine | None = None
        self._lock = threading.RLock()
        self._question = ""  # that stands without an answer

    def result(self, text: str, *, even_if_quiet: bool = False) -> None:
        """A line of standard output."""
        if self.verbosity >= 0 or even_if_quiet:
            self._line(self.out, text)

    def message(self, text: str) -> None:
        """All lines of what the other side wrote, on standard output. Raises LocalFileError if it takes nothing: they
        are nowhere else. A reader that went away did not want them."""
        for line in text.expandtabs().removesuffix("\n").split("\n"):
            self._line(self.out, line, len(line))
        failure = self.out.failure
        if failure is not None and failure.errno != errno.EPIPE:
            raise LocalFileError(
                f"Cannot show the message on standard output: {failure.strerror or failure}. Let it be sent again."
            )

    def note(self, text: str) -> None:
        """A line for the person who watches."""
        if self.verbosity >= 0:
            self._line(self.err, text)

    def warning(self, text: str) -> None:
        self._line(self.err, f"Warning: {text}")

    def debug(self, text: str, level: int = 1) -> None:
        if self.verbosity >= level:
            self._line(self.err, f"  {text}")

    def error(self, text: str) -> None:
        """`udpsend: what happened`, whose further lines are kept, a few of them. Takes the bar away first."""
        self.set_status(None)
        with self._lock:
            if self._question:
                self.err.write("\n")
                self._question = ""
        lines = text.strip().splitlines()[:LONGEST_ERROR]
        for prefix, line in zip(["udpsend: ", "  ", "  "], lines, strict=False):
            self._line(self.err, prefix + line.strip())

    def bug(self, error: BaseException) -> None:
        """What is no `UdpsendError` is a bug of ours, and is called one."""
        hint = "Please report it." if self.verbosity >= 2 else "Please report it with what -vv shows."
        self.error(f"this is a bug in udpsend: {type(error).__name__}: {' '.join(str(error).split())}\n{hint}")
        self.traceback(error)

    def traceback(self, error: BaseException) -> None:
        if self.verbosity >= 2:
            import traceback

            for part in traceback.format_exception(error):
                for line in part.splitlines():
                    self._line(self.err, line)

    def picture(self, rows: list[str]) -> None:
        """Rows of our own drawing on standard output, not escaped."""
        with self._lock:
            self.out.write("".join(f"{row}\n" for row in rows))

    def set_status(self, status: StatusLine | None) -> None:
        """What is below the lines from now on. What was there before stays where it is."""
        with self._lock:
            self._status = status

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Held while a status line draws itself."""
        with self._lock:
            yield

    def _line(self, stream: OutputStream, text: str, longest: int = LONGEST_OUTPUT) -> None:
        with self._lock:
            if self._status is not None:
                self._status.hide()
            if self._question:
                self.err.write("\n")
            stream.write(escape(text, longest) + "\n")
            self.err.write(self._question)
            if self._status is not None:
                self._status.show()

    def ask(self, question: str) -> str | None:
        """The line that the user types, without blanks around it; None where standard input has ended."""
        with self._lock:
            self._question = escape(question, LONGEST_OUTPUT) + " "
            self.err.write(self._question)
        answer = _read_line()
        with self._lock:
            self._question = ""
            if answer is None or not _typed_on_terminal():
                self.err.write("\n")
        return answer

    def confirm(self, question: str, show: Callable[[], None] | None = None, unasked: str = "") -> bool:
        """Whether the user says yes. No is the answer to anything that is not understood twice. `show` is what the
        answer 'l' lists; `unasked` tells who cannot answer what to do."""
        tries = 2
        while tries:
            answer = self.ask(f"{question} [y/N]" if show is None else f"{question} [y/N, l lists it]")
            if show is not None and answer is not None and answer.lower() in ("l", "list"):
                show()
                continue
            tries -= 1
            if answer is None:
                self.warning(f"standard input has ended, which is taken as no.{unasked}")
                return False
            if answer.lower() in ("y", "yes"):
                return True
            if answer.lower() in ("", "n", "no"):
                return False
        return False


def _typed_on_terminal() -> bool:
    """Whether the terminal itself has shown the answer and its end of line."""
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # closed
        return False


def _read_line() -> str | None:
    """A line of standard input, read from the descriptor byte by byte.

    `sys.stdin` holds a lock while it waits; a daemon thread that waits there when Ctrl-C ends the program makes the
    interpreter abort at its end. It also reads ahead, and the next question would miss what it took.
    """
    if sys.stdin is None:
        return None
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # a replaced standard input
        text = sys.stdin.readline(LONGEST_LINE)
        return text.strip() if text else None
    line = bytearray()
    while not line.endswith(b"\n"):
        try:
            byte = os.read(descriptor, 1)
        except OSError:  # a terminal that hung up, or a background process
            byte = b""
        if not byte:
            break
        line += byte
        if len(line) > LONGEST_LINE:
            raise UsageError(f"The answer is longer than {LONGEST_LINE} bytes.")
    return line.decode("utf-8", "surrogateescape").strip() if line else None

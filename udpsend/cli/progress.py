"""How far the transfer is: a tqdm bar where standard error is a terminal that has a size, else a plain line now and
then. (In a terminal without one tqdm draws nothing.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from udpsend.cli.escape import escape
from udpsend.cli.quantity import duration_text, rate_text, size_text
from udpsend.cli.terminal import OutputStream, Terminal

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
LONGEST_NAME = 30  # columns of the file's name before the bar
REST_OF_BAR = 50  # columns of all that stands beside the name
MARGIN = 2  # columns: the terminal shows '^C' there, and does not begin another line
OPEN_FORMAT = "{desc} {n_fmt} {rate_fmt}"
BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left"


class ProgressView(Protocol):
    def advance(self, done: int) -> None: ...
    def close(self) -> None: ...


def open_progress(terminal: Terminal, name: str, already: int, total: int | None, since: float) -> ProgressView | None:
    """The view that fits where standard error goes; None if nothing is to be shown (-q, or no bytes to wait for).
    `since` (time.monotonic) is when the first byte could come: the bar's rate counts from there."""
    if terminal.verbosity < 0 or total == 0:
        return None
    if terminal.err.columns:
        return ProgressBar(terminal, name, already, total, since)
    return ProgressLines(terminal, already, total)


class ProgressBar:
    """tqdm on standard error. `already` bytes count as done and not towards the rate."""

    def __init__(self, terminal: Terminal, name: str, already: int, total: int | None, since: float) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own
        self._terminal = terminal
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=already,
            desc=_shortened(escape(name), terminal.err.columns - MARGIN - REST_OF_BAR, terminal.err),
            unit="B",
            unit_scale=True,
            bar_format=BAR_FORMAT if total is not None else OPEN_FORMAT,
            ncols=terminal.err.columns - MARGIN,
            file=terminal.err,
        )
        # tqdm's own clock is the wall clock, which may be set meanwhile; the stubs do not know the attribute.
        self._bar._time = time.monotonic  # type: ignore[attr-defined]
        # What came before it was drawn may be all of a small file.
        self._bar.start_t = self._bar.last_print_t = since
        terminal.set_status(self)

    def advance(self, done: int) -> None:
        with self._terminal.drawing():
            self._bar.ncols = self._terminal.err.columns - MARGIN
            self._bar.initial += min(0, done - self._bar.n)  # so much of what was there differs
            self._bar.update(done - self._bar.n)

    def hide(self) -> None:
        self._bar.clear()

    def show(self) -> None:
        self._bar.refresh()

    def close(self) -> None:
        with self._terminal.drawing():
            self._terminal.set_status(None)
            self._bar.close()


class ProgressLines:
    """A line every few seconds, for logs."""

    def __init__(
        self, terminal: Terminal, already: int, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._already = self._done = already
        self._total = total
        self._clock = clock
        self._started = self._shown = clock()

    def advance(self, done: int) -> None:
        self._already += min(0, done - self._done)  # so much of what was there differs
        self._done = done
        now = self._clock()
        if now - self._shown < SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        rate = (done - self._already) / (now - self._started)
        if self._total is None:
            self._terminal.note(f"{size_text(done)}, {rate_text(rate)}")
            return
        left = f", {duration_text((self._total - done) / rate)} left" if rate > 0 else ""
        self._terminal.note(
            f"{size_text(done)} of {size_text(self._total)}, {100 * done // self._total} %, {rate_text(rate)}{left}"
        )

    def close(self) -> None:
        """The last line of the command says the rest."""


def _shortened(name: str, room: int, stream: OutputStream) -> str:
    """The name's beginning and end, where it is wider than there is room for beside the bar."""
    from tqdm.utils import disp_len

    name = name.encode(stream.encoding, "backslashreplace").decode(stream.encoding)  # as the stream writes it
    cut = "…" if stream.can_show("…") else "..."
    shown, half = name, len(name) // 2
    while half and disp_len(shown) > min(room, LONGEST_NAME):
        half -= 1
        shown = f"{name[:half]}{cut}{name[len(name) - half :]}"
    return shown

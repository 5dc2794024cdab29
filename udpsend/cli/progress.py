"""How far the transfer is: a tqdm bar where standard error is a terminal that has a size, else a plain line now and
then. (In a terminal without one tqdm draws nothing.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from udpsend.cli.escape import escape
from udpsend.cli.quantity import duration_text, rate_text, size_text
from udpsend.cli.terminal import Terminal

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
LONGEST_NAME = 30  # characters of the file's name before the bar
OPEN_FORMAT = "{desc} {n_fmt} {rate_fmt}"
BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left"


class ProgressView(Protocol):
    def advance(self, done: int) -> None: ...
    def close(self) -> None: ...


def open_progress(terminal: Terminal, name: str, already: int, total: int | None) -> ProgressView | None:
    """The view that fits where standard error goes; None if nothing is to be shown (-q, or no bytes to wait for)."""
    if terminal.verbosity < 0 or total == 0:
        return None
    if terminal.err.has_size:
        return ProgressBar(terminal, name, already, total)
    return ProgressLines(terminal, already, total)


class ProgressBar:
    """tqdm on standard error. `already` bytes count as done and not towards the rate."""

    def __init__(self, terminal: Terminal, name: str, already: int, total: int | None) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own
        self._terminal = terminal
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=already,
            desc=_shortened(escape(name)),
            unit="B",
            unit_scale=True,
            bar_format=BAR_FORMAT if total is not None else OPEN_FORMAT,
            dynamic_ncols=True,
            file=terminal.err,
        )
        terminal.set_status(self)

    def advance(self, done: int) -> None:
        with self._terminal.drawing():
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
        self._already = already
        self._total = total
        self._clock = clock
        self._started = self._shown = clock()

    def advance(self, done: int) -> None:
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


def _shortened(name: str) -> str:
    """The name's beginning and end, where its middle is too long for a bar beside it."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"

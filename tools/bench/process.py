"""A command, timed and weighed: when it ended, what CPU time and memory it and the processes it waited for took.

The peak of memory is the reason for the detour through `sh`: Linux carries the peak over from the process that forked,
so a child of this interpreter would show at least the interpreter's. `sh` starts the command in the background, tells
its number and exits; this process is the subreaper and inherits it, and then `wait4` has the whole truth.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_IDLE = 0.4  # seconds
# The command holds until standard input ends, and by then `sh` has gone: it would wait for a quick child itself.
_START = 'exec 3<&0; { read _ <&3; exec 3<&-; exec "$@"; } >"$BENCH_LOG" 2>&1 & echo $!'


class BenchError(Exception):
    """A tool did not do what it should; the text has the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and the descendants that it waited for have used."""

    cpu: float
    """Seconds, user and system."""
    peak: int
    """Bytes: the resident set of the largest of them."""


def _parents() -> list[int]:
    """The parent's number of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name is in parentheses and may hold anything; after it come the state and the parent.
            found.append(int(path.read_text().rpartition(")")[2].split()[1]))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Running:
    """A command that was started; its output goes to the file `log`."""

    def __init__(self, argv: Sequence[str | os.PathLike[str]], log: Path, env: Mapping[str, str] | None = None) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.log = log
        self.argv = [os.fspath(word) for word in argv]
        self.ended: float | None = None
        whole = {**os.environ, **(env or {}), "BENCH_LOG": os.fspath(log)}
        with subprocess.Popen(
            ["sh", "-c", _START, "sh", *self.argv],
            env=whole,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as starter:
            assert starter.stdin is not None
            assert starter.stdout is not None
            self._pid = int(starter.stdout.readline())
            starter.wait()
            self.descriptor = os.pidfd_open(self._pid)

    def printed(self) -> str:
        """What the command has printed so far."""
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_for_text(self, text: str, deadline: float) -> None:
        """Waits until the command has printed `text`. Raises BenchError when it ends first or `deadline` passes."""
        while text not in self.printed():
            if time.monotonic() > deadline or select.select([self.descriptor], [], [], 0.01)[0]:
                raise BenchError(self._complaint(f"never said {text!r}"))

    def when_said(self, text: str, deadline: float) -> float:
        """Monotonic seconds when the command had printed `text`, or when it had ended. Raises BenchError."""
        while text not in self.printed():
            if select.select([self.descriptor], [], [], 0.002)[0]:
                break
            if time.monotonic() > deadline:
                raise BenchError(self._complaint(f"never said {text!r}"))
        return time.monotonic()

    def wait_until_idle(self, deadline: float) -> None:
        """Waits until the command has done nothing for a moment: it waits for the other end. Raises BenchError."""
        used, since = -1, time.monotonic()
        while (now := time.monotonic()) < since + _IDLE:
            if now > deadline or select.select([self.descriptor], [], [], 0.02)[0]:
                raise BenchError(self._complaint("did not come to rest"))
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])  # user and system
            if ticks != used:
                used, since = ticks, now

    def wait_for_children(self, deadline: float) -> None:
        """Waits until the command has waited for all of its children, so that `reap` counts them."""
        while any(parent == self._pid for parent in _parents()):
            if time.monotonic() > deadline:
                raise BenchError(self._complaint("its children did not end"))
            time.sleep(0.01)

    def reap(self) -> tuple[int, Usage]:
        """Waits for the end: (exit code, usage)."""
        _, status, usage = os.wait4(self._pid, 0)
        os.close(self.descriptor)
        self.descriptor = -1
        spent = Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        return os.waitstatus_to_exitcode(status), spent

    def terminate(self, how: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> Usage:
        """Ends the command if it runs still, by force after `patience` seconds."""
        if self.descriptor < 0:
            return Usage(0.0, 0)
        signal.pidfd_send_signal(self.descriptor, how)
        if not select.select([self.descriptor], [], [], patience)[0]:
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
        return self.reap()[1]

    def check(self, code: int) -> None:
        """Raises BenchError unless `code` is 0."""
        if code != 0:
            raise BenchError(self._complaint(f"exit code {code}"))

    def _complaint(self, what: str) -> str:
        return f"{what}; {self.printed()[-600:].strip()}"


def wait_for_all(processes: Sequence[Running], deadline: float) -> list[Usage]:
    """Waits until each has ended well, and notes when. Raises BenchError at the first that fails, or at `deadline`.

    Whatever still runs then is ended.
    """
    usages: dict[int, Usage] = {}
    try:
        while len(usages) < len(processes):
            open_ones = {process.descriptor: number for number, process in enumerate(processes) if number not in usages}
            ready = select.select(list(open_ones), [], [], max(0.0, deadline - time.monotonic()))[0]
            now = time.monotonic()
            if not ready:
                slow = ", ".join(Path(processes[number].argv[0]).name for number in open_ones.values())
                raise BenchError(f"not done in time: {slow}; {processes[0].printed()[-300:].strip()}")
            for descriptor in ready:
                number = open_ones[descriptor]
                processes[number].ended = now
                code, usages[number] = processes[number].reap()
                processes[number].check(code)
    finally:
        for process in processes:
            process.terminate(signal.SIGKILL)
    return [usages[number] for number in range(len(processes))]

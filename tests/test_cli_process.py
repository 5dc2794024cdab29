"""The command line as processes of their own: terminals, signals, pipes, closed streams, completion, `serve`.

The library is replaced by a few lines of script in that process; events get there pickled.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli_library import DIGEST
from udpsend import events

BOUND = 60  # seconds that a process may take before the test gives up

SCRIPT = """
import pickle, sys, udpsend
from udpsend import events
from udpsend.cli import main

telling, offer = pickle.loads({told!r})

def call(first, *arguments, accept=None, on_event, **keywords):
    for event in telling:
        on_event(event)
    answers = [accept(offer)] if offer is not None else []
    {then}
    return events.Verified("f", 1, 0.1, "")

udpsend.send = udpsend.receive = call
sys.exit(main({words!r}))
"""
SAY_ANSWERS = "print(f'called with {first}, answered {answers}')"


def script(
    words: list[str], telling: list[events.Event] | None = None, offer: events.Offered | None = None, then: str = "pass"
) -> list[str]:
    """A command that runs udpsend with `words`, the library telling `telling`, asking about `offer`, doing `then`."""
    return [sys.executable, "-c", SCRIPT.format(told=pickle.dumps((telling or [], offer)), then=then, words=words)]


SHOWN: list[events.Event] = [
    events.CodeReady("4821-marble-otter"),
    events.PathFound(events.PathKind.THIS_HOST, ("127.0.0.1", 1), 0.0001),
    events.Offered("file.bin", 1_000_000),
    events.Progress(0, 1_000_000),
    events.Progress(500_000, 1_000_000),
    events.PeerMet("between"),
    events.Progress(1_000_000, 1_000_000),
    events.Verified("file.bin", 1_000_000, 0.5, DIGEST),
]


def test_two_answers_from_one_pipe() -> None:
    """The code and the answer may come down the same pipe: the first question takes no more than its line."""
    command = script(["recv"], offer=events.Offered("f", 1), then=SAY_ANSWERS)
    finished = subprocess.run(command, input=b"the code\ny\n", capture_output=True, timeout=BOUND, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == b"called with the code, answered [True]\n"


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command on a terminal of 100 columns; returns its exit code and all that it wrote there."""
    opened: list[int] = []

    def run(command: list[str], answer_to: dict[str, str] | None = None) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        opened.extend((ours, theirs))
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        # COLUMNS and LINES would be believed before the terminal.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"PYTHONIOENCODING": "utf-8", "TERM": "xterm"}
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
        )
        os.close(opened.pop())
        written, pending = b"", dict(answer_to or {})
        deadline = time.monotonic() + BOUND
        try:
            while time.monotonic() < deadline:
                if not select.select([ours], [], [], 1)[0]:
                    continue
                try:
                    part = os.read(ours, 65536)
                except OSError:  # EIO: the last process left the terminal
                    break
                if not part:
                    break
                written += part
                for question in [question for question in pending if question.encode() in written]:
                    answer = pending.pop(question)
                    if answer == "^C":
                        process.send_signal(signal.SIGINT)
                    else:
                        os.write(ours, answer.encode())
            return process.wait(timeout=BOUND), written.decode()
        finally:
            process.kill()
            process.wait()

    yield run
    for descriptor in opened:
        os.close(descriptor)


def test_a_terminal_gets_picture_and_bar(on_terminal: Callable[..., tuple[int, str]]) -> None:
    status, text = on_terminal(script(["send", "f"], SHOWN))
    assert status == 0
    assert "█" in text
    assert "Code: 4821-marble-otter" in text
    bars = [part for part in re.split(r"[\r\n]", text) if part.startswith("file.bin")]
    assert re.fullmatch(r"file\.bin 100% \|█+\| 1\.00M/1\.00M \S+B/s, 00:00 left\s*", bars[-1])
    assert text.rstrip().splitlines()[-1] == "Sent file.bin: 1.0 MB in 0.50 s, 2.0 MB/s, verified"


def test_a_terminal_without_the_picture(on_terminal: Callable[..., tuple[int, str]]) -> None:
    status, text = on_terminal(script(["send", "f", "--no-qr"], SHOWN[:1]))
    assert status == 0
    assert not set(text) & set("▀▄█")


@pytest.mark.parametrize(
    ("command", "length", "is_drawn"),
    [
        (["send", "f", "--manual"], 300, True),
        (["recv", "my code", "--manual", "--yes"], 300, True),
        (["send", "f", "--manual", "--no-qr"], 300, False),
        (["recv", "my code", "--manual", "--yes"], 1500, False),  # wider than 100 columns
    ],
)
def test_a_text_to_carry_is_drawn_where_it_fits(
    on_terminal: Callable[..., tuple[int, str]], command: list[str], length: int, is_drawn: bool
) -> None:
    text = "udpsend1.2." + "x" * length
    status, shown = on_terminal(script(command, [events.TextToCarry(2, text)]))
    assert status == 0
    assert text in shown
    assert bool(set(shown) & set("▀▄█")) is is_drawn


def test_questions_on_a_terminal(on_terminal: Callable[..., tuple[int, str]]) -> None:
    answers = {"Code:": "my code\n", "[y/N]": "y\n"}
    status, text = on_terminal(script(["recv"], offer=events.Offered("f.txt", 5), then=SAY_ANSWERS), answers)
    assert status == 0
    assert "Receive f.txt, 5 bytes, into this directory? [y/N]" in text
    assert "called with my code, answered [True]" in text


@pytest.mark.parametrize("files", [1, 2])
def test_a_question_that_nobody_can_answer_names_the_option(files: int) -> None:
    asking = script(["recv", "c"], offer=events.Offered("f.txt", 5, files=files), then=SAY_ANSWERS)
    ended = subprocess.run(asking, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOUND)
    assert b"answered [False]" in ended.stdout
    assert b"standard input has ended, which is taken as no. With --yes it is taken" in ended.stderr


def test_interrupt_at_a_question(on_terminal: Callable[..., tuple[int, str]]) -> None:
    status, text = on_terminal(script(["recv"]), {"Code:": "^C"})
    assert status == 130
    assert text.splitlines()[-1] == "udpsend: Stopped."


def test_interrupt_while_a_thread_asks(on_terminal: Callable[..., tuple[int, str]]) -> None:
    """A daemon thread that waits for an answer does not hold up the end of the process, nor abort it."""
    then = "import threading; threading.Thread(target=accept, args=(events.Offered('f', 1),), daemon=True).start(); "
    then += "threading.Event().wait()"
    status, text = on_terminal(script(["recv", "c"], then=then), {"[y/N]": "^C"})
    assert status == 130
    assert text.splitlines()[-1] == "udpsend: Stopped."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_ends_like_an_interrupt(number: signal.Signals) -> None:
    then = "print('waiting', flush=True); import threading; threading.Event().wait()"
    process = subprocess.Popen(script(["send", "f"], then=then), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waiting\n"
            process.send_signal(number)
            _, complaint = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert process.returncode == 130
    assert complaint == b"udpsend: Stopped.\n"


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_goes_away_does_not_end_the_transfer(both: bool, tmp_path: Path) -> None:
    """Standard output (and error) lead to a pipe that nobody reads; the library is called and comes to its end."""
    mark = tmp_path / "ended"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = script(["send", "f"], SHOWN, then=f"open({str(mark)!r}, 'w').close()")
        finished = subprocess.run(
            command, stdout=writing, stderr=writing if both else subprocess.PIPE, timeout=BOUND, check=False
        )
    finally:
        os.close(writing)
    assert mark.exists()
    assert finished.returncode == 0
    if not both:
        assert b"BrokenPipe" not in finished.stderr


def test_streams_that_are_closed() -> None:
    command = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *script(["send", "f"], SHOWN)]
    assert subprocess.run(command, timeout=BOUND, check=False).returncode == 0


def test_a_terminal_that_knows_ascii_only() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    finished = subprocess.run(
        script(["send", "f"], [events.Verified("grüße.txt", 1, 1.0, DIGEST)]),
        env=environment, capture_output=True, timeout=BOUND, check=False,
    )  # fmt: skip
    assert finished.returncode == 0
    assert b"Sent gr\\xfc\\xdfe.txt: 1 byte" in finished.stdout


def test_completion() -> None:
    environment = {**os.environ, "_UDPSEND_COMPLETE": "bash_complete", "COMP_WORDS": "udpsend se", "COMP_CWORD": "1"}
    code = "import sys; from udpsend.cli import main; sys.exit(main())"
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert finished.stdout.split() == ["plain,send", "plain,serve"]


def test_python_m() -> None:
    command = [sys.executable, "-m", "udpsend", "--version"]
    assert subprocess.run(command, capture_output=True, timeout=BOUND, check=True).stdout.startswith(b"udpsend ")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_standard_streams_ends_as_others_do(closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "udpsend"]
    assert subprocess.run([*command, "--version"], capture_output=True, timeout=BOUND, check=False).returncode == 0
    assert subprocess.run([*command, "--nonsense"], capture_output=True, timeout=BOUND, check=False).returncode == 2


@pytest.mark.parametrize(("words", "closed"), [("recv 1234-marble-otter -o -", ">&-"), ("send -", "<&-")])
def test_a_stream_that_is_closed_is_no_pipe(words: str, closed: str) -> None:
    """What came was written into a socket that had got the number."""
    command = ["sh", "-c", f'exec "$0" -m udpsend {words} --broker none --no-lan --manual {closed}', sys.executable]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert finished.returncode == 2
    assert "is closed" in finished.stderr


def test_ctrl_c_while_modules_are_imported() -> None:
    code = "import sys; from udpsend.__main__ import run; sys.meta_path.insert(0, {finder}); run()"
    finder = "type('Slow', (), {'find_spec': lambda *_: signal.raise_signal(signal.SIGINT)})()"
    command = [sys.executable, "-c", "import signal; " + code.format(finder=finder)]
    finished = subprocess.run(command, capture_output=True, timeout=BOUND, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, b"", b"")


# --- serve


SERVE = textwrap.dedent(
    """
    import sys, types
    fake = types.ModuleType("udpsend.serve.server")
    class Server:
        def __init__(self, host, mqtt_port, stun_port):
            self.mqtt_port, self.stun_port = mqtt_port or 40001, stun_port or 40002
        def start(self):
            {start}
        def stop(self):
            print("server stopped", flush=True)
    fake.Server = Server
    sys.modules["udpsend.serve.server"] = fake
    from udpsend.cli import main
    sys.exit(main({words!r}))
    """
)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_serve_prints_the_options_and_waits(number: signal.Signals, status: int) -> None:
    words = ["serve", "--host", "127.0.0.1", "--mqtt-port", "0", "--stun-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(start="pass", words=words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            options = shlex.split(process.stdout.readline())
            export = process.stdout.readline()
            lines = iter(process.stderr.readline, "")
            assert any("Ctrl-C stops" in line for line in lines)
            process.send_signal(number)
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert options == ["--broker", "mqtt://127.0.0.1:40001", "--stun", "127.0.0.1:40002"]
    assert "export UDPSEND_BROKER=mqtt://127.0.0.1:40001 UDPSEND_STUN=127.0.0.1:40002" in export
    assert out == "server stopped\n"
    assert process.returncode == status
    assert err == ("udpsend: Stopped.\n" if status else "")


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("from udpsend.errors import UsageError; raise UsageError('port 1883 is taken.\\nchoose another')", "is taken"),
        ("from udpsend.errors import UsageError; raise UsageError('no amqtt:\\npip install')", "  pip install"),
    ],
)
def test_serve_that_cannot_start(start: str, says: str) -> None:
    command = [sys.executable, "-c", SERVE.format(start=start, words=["serve"])]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert finished.returncode == 2
    assert says in finished.stderr
    assert len(finished.stderr.splitlines()) == 2


HANGING = """
import os, sys, udpsend
from udpsend import events
from udpsend.cli import main
from udpsend.reporting import Reporter

def call(*arguments, on_event, **keywords):
    reporter = Reporter(on_event)
    for number in range(2000):
        reporter.emit(events.WrongGuess(number))
    os.write({ready}, b"x")
    reporter.close()

udpsend.send = call
sys.exit(main(["send", "f"]))
"""


RUNNING = """
import os, sys, time, udpsend
from udpsend import events
from udpsend.caller import Caller
from udpsend.cli import main
from udpsend.interrupts import interruptible
from udpsend.rendezvous.code import parse_code
from udpsend.shell import Shell

class Hanging(Shell):
    def _run(self):
        for number in range(2000):
            self.emit(events.WrongGuess(number))
        with interruptible(lambda: os.write({ready}, b"x")):
            os.write({ready}, b"x")
            time.sleep(600)

udpsend.send = lambda *_, on_event, **__: Hanging(parse_code("4821-a-b"), udpsend.Config(), Caller(on_event)).run()
sys.exit(main(["send", "f"]))
"""


@pytest.mark.parametrize(
    ("script", "numbers"),
    [(HANGING, [signal.SIGINT]), (HANGING, [signal.SIGTERM]), (RUNNING, [signal.SIGINT, signal.SIGINT])],
)
def test_ctrl_c_leaves_where_nobody_reads_the_terminal(script: str, numbers: list[signal.Signals]) -> None:
    """Of a transfer that runs, the second one: it took a third."""
    ours, theirs = pty.openpty()
    waiting, ready = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script.format(ready=ready)], stdin=theirs, stdout=theirs, stderr=theirs,
        pass_fds=[ready], start_new_session=True,
    )  # fmt: skip
    try:
        for number in numbers:
            assert select.select([waiting], [], [], BOUND)[0]
            os.read(waiting, 1)
            process.send_signal(number)
        assert process.wait(BOUND) == 130
    finally:
        process.kill()
        process.wait()
        for descriptor in (ours, theirs, waiting, ready):
            os.close(descriptor)

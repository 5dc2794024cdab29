"""What the command line shows and asks, against a library that is replaced; escapes and quantities."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import shlex
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm.utils import disp_len

from tests.cli_library import DIGEST, HOSTILE, Library, assert_harmless, replaced_library, type_in
from udpsend import events
from udpsend.cli import main, terminal
from udpsend.cli.display import Display
from udpsend.cli.escape import LONGEST_NAME, escape
from udpsend.cli.invitation import command_for_other_side, qr_rows
from udpsend.cli.progress import SECONDS_BETWEEN_LINES, ProgressBar, ProgressLines, open_progress
from udpsend.cli.quantity import duration_text, rate_text, round_trip_text, size_text
from udpsend.cli.terminal import Terminal
from udpsend.config import DEFAULT_BROKERS, DEFAULT_STUN_SERVERS, Config, Role
from udpsend.errors import LocalFileError

__all__ = ["replaced_library"]

# --- what is shown


def test_what_a_sender_sees(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "file.bin"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "Code: 4821-marble-otter",
        "On the other machine:",
        "    udpsend recv 4821-marble-otter",
        "Sent file.bin: 268.4 MB in 0.84 s, 320 MB/s, verified",
    ]
    assert captured.err.splitlines() == [
        "Waiting for the other side (Ctrl-C stops) ...",
        "The other side is there and knows the code.",
        "The other side is on the local network.",
        "Direct path: local network, 192.168.1.7:40123, round trip 0.40 ms",
        "Offering file.bin, 268.4 MB; the other side is asked ...",
        "Accepted.",
        "All bytes are there. Comparing the hashes of both sides ...",
    ]


def test_what_a_receiver_sees(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling[-1] = events.Verified("file.bin", 1000, 0.01, DIGEST, path="/home/x/file.bin")
    assert main(["recv", "4821-marble-otter", "-y"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Received file.bin as /home/x/file.bin: 1.0 kB in 0.01 s, 0.1 MB/s, verified\n"
    assert "Offered: file.bin, 268.4 MB" in captured.err


def test_an_offer_that_is_late_is_told_on_both_sides(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling.insert(5, events.OfferLate())
    for arguments, line in (
        (["send", "f"], "Still going through what is to be sent ..."),
        (
            ["recv", "4821-marble-otter", "-y"],
            "The sender still goes through its files, or is asked for the phrase ...",
        ),
    ):
        assert main(arguments) == 0
        assert capsys.readouterr().err.splitlines()[4] == line


def test_work_before_the_first_byte_is_told(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling.insert(6, events.Preparing())
    assert main(["recv", "4821-marble-otter"]) == 0
    assert "Offered: file.bin, 268.4 MB\nPreparing the files here ...\n" in capsys.readouterr().err


def test_where_no_file_could_be_put_a_message_is_all_that_can_be_received(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.telling.insert(1, events.NoRoom("Cannot write into the directory '/': permission denied."))
    assert main(["recv", "4821-marble-otter"]) == 0
    warning = "Warning: Cannot write into the directory '/': permission denied. Only a message can be received.\n"
    assert warning in capsys.readouterr().err


def test_the_other_side_is_to_compare_the_phrase_too(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "f", "--verify"]) == 0
    assert "    udpsend recv --verify 4821-marble-otter\n" in capsys.readouterr().out


def test_quiet_leaves_the_code(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "f", "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("4821-marble-otter\n", "")
    assert main(["recv", "c", "-q", "-y"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_verbose_shows_mailboxes_stun_and_counters(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling[3:3] = [
        events.MeetingPlace("local network", False, "no interface"),
        events.PublicAddress("127.0.0.1:9", None, "no answer"),
    ]
    assert main(["send", "f", "-v"]) == 0
    text = capsys.readouterr().err
    for line in (
        "mailbox mqtt://127.0.0.1:1883: up",
        "mailbox local network: down (no interface)",
        "STUN 127.0.0.1:3478: 127.0.0.1:40000",
        "STUN 127.0.0.1:9: no answer",
        "counters: datagrams lost 3, drops: strangers 1",
        f"BLAKE3 {DIGEST}",
    ):
        assert f"  {line}\n" in text


def test_a_relay_that_is_tried_again_is_complained_of_once(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = events.RelayReady("turn:a", None, "no answer")
    library.telling[3:3] = [silent, silent, events.RelayReady("turn:a", ("203.0.113.9", 5000)), silent]
    assert main(["send", "f"]) == 0
    assert capsys.readouterr().err.count("the relay turn:a is of no use: no answer.") == 2


def test_what_is_said_meanwhile_does_not_run_into_a_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Terminal()

    def read_line() -> str:
        shown.warning("nothing is heard.")
        return "y"

    monkeypatch.setattr(terminal, "_read_line", read_line)
    assert shown.confirm("Receive it?")
    question = "Receive it? [y/N] "
    assert capsys.readouterr().err == f"{question}\nWarning: nothing is heard.\n{question}\n"


@pytest.mark.parametrize(
    ("places", "warns"),
    [
        ([("mqtts://a:1", False), ("wss://b", False)], True),
        ([("mqtts://a:1", False), ("local network", True), ("wss://b", False), ("wss://b", False)], True),
        ([("mqtts://a:1", False), ("local network", False)], False),
        ([("mqtts://a:1", False), ("wss://b", True), ("wss://b", False)], False),
        ([("mqtts://a:1", True), ("wss://b", False), ("mqtts://a:1", False)], False),
    ],
)
def test_only_brokers_that_are_all_down_are_told(
    library: Library, capsys: pytest.CaptureFixture[str], places: list[tuple[str, bool]], warns: bool
) -> None:
    library.telling = [events.MeetingPlace(name, up) for name, up in places]
    assert main(["send", "f", "--broker", "mqtts://a:1", "--broker", "mqtt://a", "--broker", "wss://b"]) == 0
    assert capsys.readouterr().err.count("no broker can be reached") == warns


def test_of_the_only_broker_it_is_said_why(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [events.MeetingPlace("mqtts://a:1", False, "mqtts://a:1: refused; mqtt://a:1883: no\x1b answer")]
    assert main(["send", "f", "--broker", "mqtts://a:1", "--broker", "mqtt://a"]) == 0
    warning = r"no broker can be reached: mqtts://a:1: refused; mqtt://a:1883: no\x1b answer. The two can meet"
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize(
    ("brokers", "lan", "says"),
    [
        ("none", False, "there is no place to meet"),
        ("mqtts://a:1", True, "can meet on the local network only"),
        ("mqtts://a:1", False, "Trying again"),
    ],
)
def test_what_is_left_to_meet_is_told(
    library: Library, capsys: pytest.CaptureFixture[str], brokers: str, lan: bool, says: str
) -> None:
    library.telling = [events.MeetingPlace("local network", lan), events.MeetingPlace("mqtts://a:1", False)]
    assert main(["send", "f", "--broker", brokers]) == 0
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "named", "says"),
    [
        (10, 10, []),
        (12, 12, ["2 more are not sent (-v shows them)."]),
        (500, 100, ["490 more are not sent (-v shows 90 of them)."]),
    ],
)
def test_what_is_not_sent_is_named_as_far_as_it_is_known(
    library: Library, capsys: pytest.CaptureFixture[str], count: int, named: int, says: list[str]
) -> None:
    """A sender names no more than a hundred things."""
    library.telling = [events.Skipped(count, tuple((f"s{number}", "is a socket") for number in range(named)))]
    main(["recv", "c", "-y"])
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [f"Warning: s{number} is not sent: it is a socket." for number in range(10)] + [
        f"Warning: {line}" for line in says
    ]
    main(["recv", "c", "-y", "-v"])
    assert capsys.readouterr().err.count("is a socket") == named


def test_a_weak_code_draws_a_warning(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [events.CodeReady("abc", weak="The code is short.")]
    for options in ([], ["-q"]):
        assert main(["send", "f", *options]) == 0
        assert "Warning: The code is short.\n" in capsys.readouterr().err


def test_wrong_guesses_are_told(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [events.WrongGuess(2), events.WrongGuess(0)]
    assert main(["send", "f", "-q"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert "2 more" in first
    assert "stops now" in second


def test_what_is_there_already_is_told(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [events.Accepted(already=2_000_000), events.Verified("f", 3_000_000, 1.0, DIGEST)]
    assert main(["send", "f"]) == 0
    captured = capsys.readouterr()
    assert "There already: 2.0 MB, which is sent again only where it differs.\n" in captured.err
    assert captured.out == "Sent f: 3.0 MB in 1.00 s, 1.0 MB/s, verified\n"


@pytest.mark.parametrize(
    ("files", "others", "left_out", "says"),
    [
        (5, 0, 0, "Sent t (5 files): 1.0 kB in 1.00 s, 1.0 kB/s, verified\n"),  # a directory
        (2, 1, 0, "Sent t and 1 other: 1.0 kB in 1.00 s, 1.0 kB/s, verified\n"),  # two files
        (6, 2, 1, "Sent t and 2 others (6 files): 1.0 kB in 1.00 s, verified; 1 was there already\n"),
        (6, 0, 2, "Sent t (6 files): 1.0 kB in 1.00 s, verified; 2 were there already\n"),
    ],
)
def test_what_was_sent_is_counted(
    library: Library, capsys: pytest.CaptureFixture[str], files: int, others: int, left_out: int, says: str
) -> None:
    library.telling = [events.Verified("t", 1000, 1.0, DIGEST, files=files, others=others, left_out=left_out)]
    assert main(["send", "t"]) == 0
    assert capsys.readouterr().out == says


def test_the_rate_is_that_of_what_was_sent_and_not_of_holes(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.telling = [events.Verified("f", 104_900_000, 0.01, DIGEST, holes=104_896_000)]
    assert main(["send", "f"]) == 0
    assert capsys.readouterr().out == "Sent f: 104.9 MB (4.0 kB and holes) in 0.01 s, 0.4 MB/s, verified\n"


def test_an_empty_file_has_no_rate(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [events.Progress(0, 0), events.Verified("f", 0, 0.0, DIGEST)]
    assert main(["send", "f"]) == 0
    assert capsys.readouterr().out == "Sent f: 0 bytes in 0.00 s, verified\n"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (events.PathKind.THIS_HOST, "on this host"),
        (events.PathKind.LOCAL_NETWORK, "on the local network"),
        (events.PathKind.IPV6, "over IPv6"),
        (events.PathKind.INTERNET, "through NAT"),
    ],
)
def test_who_came(library: Library, capsys: pytest.CaptureFixture[str], kind: events.PathKind, says: str) -> None:
    library.telling = [events.PathFound(kind, ("2001:db8::1", 5), 0.034)]
    assert main(["send", "f"]) == 0
    text = capsys.readouterr().err
    assert says in text
    assert "[2001:db8::1]:5, round trip 34 ms" in text


def test_a_lost_path_is_told_and_so_is_the_next(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = [
        events.PathFound(events.PathKind.INTERNET, ("203.0.113.1", 5), 0.034),
        events.Progress(1, 2),
        events.PathLost(),
        events.PathFound(events.PathKind.INTERNET, ("203.0.113.2", 6), 0.034),
        events.Progress(2, 2),
    ]
    assert main(["send", "f"]) == 0
    text = capsys.readouterr().err
    first, second = text.split("Looking for another path")
    assert "203.0.113.1:5" in first
    assert "203.0.113.2:6" in second


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verbosity", [-1, 0, 2])
def test_every_text_of_the_other_side_is_escaped(
    role: Role, verbosity: int, capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display(Terminal(verbosity), role, Config())
    hostile: list[events.Event] = [
        events.CodeReady(HOSTILE, weak=HOSTILE),
        events.MeetingPlace(HOSTILE, True, HOSTILE),
        events.PublicAddress(HOSTILE, (HOSTILE, 1), HOSTILE),
        events.PeerMet(HOSTILE),
        events.PathFound(events.PathKind.INTERNET, (HOSTILE, 1), 0.1),
        events.Offered(HOSTILE * 100, 1),
        events.Progress(1, 2),
        events.Verified(HOSTILE, 1, 1.0, HOSTILE, HOSTILE),
        events.Statistics({HOSTILE: 1}),
    ]
    for event in hostile:
        display(event)
    captured = capsys.readouterr()
    assert_harmless(captured.out)
    assert_harmless(captured.err)


def test_the_question_shows_name_and_size(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library.telling = []
    library.offer = events.Offered(HOSTILE + "x" * 5000, 1_234_567)
    type_in(monkeypatch, "y\n")
    assert main(["recv", "c", "-q"]) == 0
    assert library.answers == [True]
    text = capsys.readouterr().err
    assert "evil\\u202egnp.exe" in text
    assert "1.2 MB" in text  # a long name does not push the size off
    assert_harmless(text)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("y\n", True),
        ("Yes\n", True),
        (" y \n", True),
        ("\n", False),
        ("n\n", False),
        ("what?\ny\n", True),
        ("what?\nwho?\ny\n", False),
        ("", False),
    ],
)
def test_answers(library: Library, monkeypatch: pytest.MonkeyPatch, typed: str, expected: bool) -> None:
    library.telling = []
    library.offer = events.Offered("f", 1)
    type_in(monkeypatch, typed)
    assert main(["recv", "c"]) == 0
    assert library.answers == [expected]


@pytest.mark.parametrize("command", [["send", "f"], ["recv", "c", "-y"]])
def test_verify_asks_on_both_sides(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    library.telling = []
    library.phrase = "marble otter tulip"
    type_in(monkeypatch, "y\n")
    assert main([*command, "--verify", "-q"]) == 0
    assert library.answers == [True]
    assert "Phrase: marble otter tulip" in capsys.readouterr().err


# --- the command for the other side


def test_the_command_for_the_other_side() -> None:
    assert command_for_other_side("4821-marble-otter", Config()) == ("udpsend recv 4821-marble-otter", False)
    assert command_for_other_side("x", Config(), verify=True) == ("udpsend recv --verify x", False)
    config = Config(brokers=("mqtt://10.0.0.1:1883", "mqtt://b"), stun_servers=("10.0.0.1:3478",), lan=False, timeout=1)
    words = shlex.split(command_for_other_side("it's a secret", config)[0])
    assert words == [
        *["udpsend", "recv", "--broker", "mqtt://10.0.0.1:1883", "--broker", "mqtt://b"],
        *["--stun", "10.0.0.1:3478", "it's a secret"],
    ]
    assert command_for_other_side("-x", Config(brokers=()))[0] == "udpsend recv --broker none -- -x"


def test_the_command_does_not_show_a_password() -> None:
    config = Config(brokers=("mqtts://me:s3cret@example.org:8883/x",))
    assert command_for_other_side("c", config) == (
        "udpsend recv --broker mqtts://me:PASSWORD@example.org:8883/x c",
        True,
    )


@pytest.mark.parametrize("brokers", [("mqtt://127.0.0.1:1",), (), DEFAULT_BROKERS])
@pytest.mark.parametrize("stun_servers", [("127.0.0.1:1",), (), DEFAULT_STUN_SERVERS])
def test_the_command_is_understood(library: Library, brokers: tuple[str, ...], stun_servers: tuple[str, ...]) -> None:
    config = Config(brokers=brokers, stun_servers=stun_servers)
    words = shlex.split(command_for_other_side("-1 odd; code", config)[0])
    assert main(words[1:]) == 0
    assert library.config == config
    assert library.calls[0][1][0] == "-1 odd; code"


def test_qr_in_half_blocks() -> None:
    rows = qr_rows("4821-marble-otter")
    assert 10 <= len(rows) <= 20
    assert {len(row) for row in rows} == {len(rows[0])}
    assert set("".join(rows)) <= set(" ▀▄█")


# --- escape and quantities


@given(st.text(st.characters(), max_size=50))
def test_escape_leaves_nothing_hidden(text: str) -> None:
    shown = escape(text)
    assert_harmless(shown)
    assert "\n" not in shown
    assert escape(shown) == shown


@given(st.text(st.sampled_from("abc-_.()[] äöü漢字🙂\\'\""), max_size=50))
def test_escape_leaves_ordinary_text(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb", "a\\x0ab"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
        ("\u0378", "\\u0378"),
        ("\u3164", "\\u3164"),
    ],
)
def test_escape_examples(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_escape_cuts() -> None:
    assert escape("x" * LONGEST_NAME) == "x" * LONGEST_NAME
    assert escape("x" * (LONGEST_NAME + 1)) == escape("x" * 10_000) == "x" * (LONGEST_NAME - 1) + "…"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (268_435_456, "268.4 MB"),
        (5 << 30, "5.4 GB"),
        (10**18, "1.0 EB"),
        (10**22, "10000.0 EB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0.0 kB/s"), (12_345, "12.3 kB/s"), (3.44e6, "3.4 MB/s"), (9.96e6, "10 MB/s"), (1.2e9, "1200 MB/s")],
)
def test_rates(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "0.00 s"),
        (9.999, "10.0 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.9, "1 h 00 min"),
        (3719, "1 h 02 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_round_trips() -> None:
    assert [round_trip_text(seconds) for seconds in (0.00013, 0.034, 0.009996)] == ["0.13 ms", "34 ms", "10 ms"]


# --- progress


class Refusing(io.StringIO):
    """A standard output that takes nothing."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def write(self, text: str) -> int:
        raise OSError(self._code, os.strerror(self._code))


@pytest.mark.usefixtures("no_leaks")
def test_a_message_that_nobody_can_see_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(errno.ENOSPC))
    with pytest.raises(LocalFileError, match="No space left"):
        Terminal().message("the keys are under the mat")


@pytest.mark.usefixtures("no_leaks")
def test_a_message_whose_reader_went_away_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(errno.EPIPE))
    Terminal().message("the keys are under the mat")


def test_a_line_has_an_end_and_a_message_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    shown, long = Terminal(), 10 * terminal.LONGEST_OUTPUT * "x"
    shown.note(long)
    shown.message(long)
    captured = capsys.readouterr()
    assert len(captured.err) <= terminal.LONGEST_OUTPUT + 1
    assert captured.out == long + "\n"


def test_progress_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = 100.0
    lines = ProgressLines(Terminal(), 10_000_000, 110_000_000, clock=lambda: clock)
    for step in range(1, 19):  # 0.5 s and 5 MB at a time
        clock = 100.0 + step / 2
        lines.advance((2 + step) * 5_000_000)
    lines.close()
    assert SECONDS_BETWEEN_LINES == 5
    assert capsys.readouterr().err == "60.0 MB of 110.0 MB, 54 %, 10 MB/s, 5.00 s left\n"


def test_what_was_there_and_differs_does_not_count_against_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = 0.0
    lines = ProgressLines(Terminal(), 100_000_000, 100_000_000, lambda: clock)
    lines.advance(40_000_000)
    clock = 10.0
    lines.advance(60_000_000)
    assert capsys.readouterr().err == "60.0 MB of 100.0 MB, 60 %, 2.0 MB/s, 20.0 s left\n"


@contextmanager
def errors_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, encoding: str = "utf-8"
) -> Iterator[tuple[TextIO, int]]:
    """Standard error, a terminal of that size, and the descriptor that gives what is written there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        yield stream, ours
    os.close(ours)


def drawn(stream: TextIO, ours: int) -> bytes:
    """What the terminal was given, and a line 'end'."""
    stream.write("end\n")
    stream.flush()
    seen = b""
    while not seen.endswith(b"end\r\n"):
        seen += os.read(ours, 10_000)
    return seen


@pytest.mark.parametrize(
    ("rows", "columns", "view"),
    [(24, 80, ProgressBar), (0, 0, ProgressLines), (0, 80, ProgressLines), (24, 0, ProgressLines)],
)
def test_a_terminal_without_a_size_shows_lines(
    rows: int, columns: int, view: type[ProgressBar | ProgressLines], monkeypatch: pytest.MonkeyPatch
) -> None:
    with errors_on_a_terminal(monkeypatch, rows, columns):
        progress = open_progress(Terminal(), "file", 0, 100, time.monotonic())
        assert isinstance(progress, view)
        progress.close()


def test_nothing_draws_the_bar_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with errors_on_a_terminal(monkeypatch, 24, 80) as (stream, ours):
        shown = Terminal()
        progress = open_progress(shown, "file", 0, 100, time.monotonic())
        assert progress is not None
        progress.advance(50)
        progress.close()
        shown.note("over")
        seen = drawn(stream, ours)
    assert b"file" in seen
    assert seen.endswith(b"\nover\r\nend\r\n")


@pytest.mark.parametrize("name", ["film.mkv", "a film with a rather long name, and more.mkv", "長" * 40])
@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_the_bar_leaves_room_for_its_figures_and_for_an_interrupt(
    name: str, columns: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with errors_on_a_terminal(monkeypatch, 24, columns, encoding) as (stream, ours):
        progress = open_progress(Terminal(), name, 0, 300_000_000, time.monotonic())
        assert progress is not None
        progress.advance(299_000_000)
        progress.close()
        lines = drawn(stream, ours).decode(encoding).replace("\r\nend\r\n", "").split("\r")
    assert max(map(disp_len, lines)) <= columns - len("^C")
    assert "B/s" in lines[-1]
    assert name != "film.mkv" or columns < 80 or lines[-1].startswith(name)


def test_the_bar_follows_the_width_of_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with errors_on_a_terminal(monkeypatch, 24, 200) as (stream, ours):
        progress = open_progress(Terminal(), "film.mkv", 0, 100, time.monotonic())
        assert progress is not None
        fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        progress.advance(50)
        progress.close()
        last = drawn(stream, ours).decode().replace("\r\nend\r\n", "").split("\r")[-1]
    assert disp_len(last.rstrip()) <= 70 - len("^C")


def bar_drawn(monkeypatch: pytest.MonkeyPatch, already: int, total: int, *steps: int) -> bytes:
    """What a terminal shows of a bar that has been there for a million seconds."""
    with errors_on_a_terminal(monkeypatch, 24, 80) as (stream, ours):
        progress = open_progress(Terminal(), "film.mkv", already, total, time.monotonic() - 1_000_000)
        assert progress is not None
        for done in steps:
            progress.advance(done)
        progress.close()
        return drawn(stream, ours)


def test_the_rate_of_the_bar_counts_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bar_drawn(monkeypatch, 0, 3_000_000, 3_000_000)
    assert b" 3.00B/s" in seen.split(b"\r")[-3]


def test_the_rate_of_the_bar_does_not_count_what_was_there_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bar_drawn(monkeypatch, 9_000_000, 9_000_000, 1_000_000, 4_000_000)
    assert b"4.00M/9.00M 3.00B/s" in seen.split(b"\r")[-3]


def test_the_bar_does_not_notice_that_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    wall_clock = iter([0.0] * 2 + [-3600.0, 2e9] * 10)
    monkeypatch.setattr("tqdm.std.time", lambda: next(wall_clock))
    seen = bar_drawn(monkeypatch, 0, 3_000_000, 1_500_000, 3_000_000)
    assert b"1.50M/3.00M 1.50B/s" in seen
    assert b" 3.00B/s" in seen.split(b"\r")[-3]


def test_a_message_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with errors_on_a_terminal(monkeypatch, 24, 80) as (stream, ours):
        display = Display(Terminal(), Role.SENDER, Config())
        display(events.Offered("a message", 12, is_text=True))
        display(events.Accepted())
        display(events.Progress(12, None))
        display.close()
        seen = drawn(stream, ours)
    assert seen.endswith(b"Accepted.\r\nend\r\n")

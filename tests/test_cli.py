"""The command line against a library that is replaced: what is passed on, what is wrong usage, how it ends."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

import udpsend
from tests.cli_library import HOSTILE, VERIFIED, Library, assert_harmless, replaced_library, type_in
from udpsend import errors, events
from udpsend.cli import main
from udpsend.config import Config

__all__ = ["replaced_library"]

# --- what is passed on


def test_send_passes_the_defaults(library: Library) -> None:
    assert main(["send", "file.bin"]) == 0
    name, arguments, keywords = library.calls[0]
    assert (name, arguments) == ("send", (("file.bin",),))
    assert keywords["code"] is None
    assert keywords["confirm"] is None
    assert keywords["config"] == Config()


def test_recv_passes_the_defaults(library: Library) -> None:
    assert main(["recv", "4821-marble-otter"]) == 0
    name, arguments, keywords = library.calls[0]
    assert (name, arguments) == ("receive", ("4821-marble-otter", "."))
    assert keywords["overwrite"] is False
    assert keywords["accept"] is not None
    assert keywords["config"] == Config()


@pytest.mark.parametrize(
    "words", [["send", ""], ["send", "f", ""], ["recv", "c", "-o", ""], ["partials", ""], ["verify", ""]]
)
def test_an_empty_path_is_not_the_current_directory(
    library: Library, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words) == 2
    assert "A path is empty" in capsys.readouterr().err
    assert not library.calls


def test_what_may_not_be_read_is_no_wrong_usage(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The library says it, with the exit code of files."""
    (tmp_path / "f").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["send", str(tmp_path / "f")]) == 0
    assert library.calls


def test_a_file_of_the_name_of_standard_input(library: Library) -> None:
    assert main(["send", "./-"]) == 0
    assert library.calls[0][1] == (("./-",),)
    assert library.keywords["stream"] is None
    assert main(["recv", "c", "-o", "./-"]) == 0
    assert library.keywords["stream"] is None


@pytest.mark.parametrize("text", ["-5 degrees", "--", "-q", "- milk\n- eggs", "x", ""])
def test_a_text_may_begin_with_a_dash(library: Library, text: str) -> None:
    assert main(["send", f"--text={text}", "--no-lan"]) == 0
    assert library.keywords["text"] == text


def test_a_file_whose_name_looks_like_a_text(library: Library) -> None:
    assert main(["send", "--", "--text=-x"]) == 0
    assert library.calls[0][1] == (("--text=-x",),)


OPTIONS: list[tuple[list[str], str, str, str, Any]] = [
    (["--broker", "mqtt://a", "--broker", "wss://b"], "UDPSEND_BROKER", "mqtt://a wss://b", "brokers", ("mqtt://a", "wss://b")),
    (["--broker", "none"], "UDPSEND_BROKER", "none", "brokers", ()),
    (["--stun", "a:1", "--stun", "b:2"], "UDPSEND_STUN", "a:1 b:2", "stun_servers", ("a:1", "b:2")),
    (["--stun", "none"], "UDPSEND_STUN", "none", "stun_servers", ()),
    (["--no-lan"], "UDPSEND_NO_LAN", "1", "lan", False),
    (["--relay", "turn:u:p@h"], "UDPSEND_RELAY", "turn:u:p@h", "relay", "turn:u:p@h"),
    (["--no-port-mapping"], "UDPSEND_NO_PORT_MAPPING", "1", "port_mapping", False),
    (["--bind", "127.0.0.1"], "UDPSEND_BIND", "127.0.0.1", "bind", "127.0.0.1"),
    (["--bind", "::1"], "UDPSEND_BIND", "::1", "bind", "::1"),
    (["--timeout", "2.5"], "UDPSEND_TIMEOUT", "2.5", "timeout", 2.5),
    (["--no-offload"], "UDPSEND_NO_OFFLOAD", "true", "offload", False),
    (["--max-datagram", "1452"], "UDPSEND_MAX_DATAGRAM", "1452", "max_datagram_size", 1452),
    (["--congestion", "cubic"], "UDPSEND_CONGESTION", "cubic", "congestion", "cubic"),
    (["--limit", "1.5M"], "UDPSEND_LIMIT", "1500k", "limit", 1.5e6),
    (["--limit", "20000"], "UDPSEND_LIMIT", "20k", "limit", 20_000.0),
    (["--background"], "UDPSEND_BACKGROUND", "yes", "background", True),
]  # fmt: skip


@pytest.mark.parametrize(("words", "variable", "value", "field", "expected"), OPTIONS)
@pytest.mark.parametrize("command", [["send", "f"], ["recv", "c"]])
def test_options_by_word_and_by_environment(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    words: list[str],
    variable: str,
    value: str,
    field: str,
    expected: Any,
) -> None:
    assert main([*command, *words]) == 0
    assert getattr(library.config, field) == expected
    monkeypatch.setenv(variable, value)
    assert main(command) == 0
    assert getattr(library.config, field) == expected


def test_every_option_of_both_peers_has_a_variable(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("send", "recv"):
        assert main([command, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for name in ("BROKER", "STUN", "NO_LAN", "BIND", "TIMEOUT", "NO_OFFLOAD", "VERBOSE", "QUIET", "CODE"):
            assert f"UDPSEND_{name}" in text.replace(" ", ""), (command, name)


def test_a_word_beats_the_environment(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDPSEND_TIMEOUT", "1")
    monkeypatch.setenv("UDPSEND_CODE", "from-environment")
    assert main(["send", "f", "--timeout", "3", "--code", "from-word"]) == 0
    assert library.config.timeout == 3
    assert library.keywords["code"] == "from-word"


@pytest.mark.parametrize("shown", [True, False])
def test_a_word_beats_its_opposite_in_the_environment(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    monkeypatch.setenv("UDPSEND_QUIET" if shown else "UDPSEND_VERBOSE", "1")
    assert main(["send", "f", "-v" if shown else "-q"]) == 0
    assert ("STUN 127.0.0.1" in capsys.readouterr().err) is shown


@pytest.mark.parametrize("words", [["send", "f", "-v", "-q"], ["send", "f"]])
def test_verbose_and_quiet_are_wrong_usage(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("UDPSEND_QUIET", "1")
    monkeypatch.setenv("UDPSEND_VERBOSE", "1")
    assert main(words) == 2
    assert "together say nothing" in capsys.readouterr().err
    assert not library.calls


@pytest.mark.parametrize(
    ("words", "variable", "typed", "expected"),
    [
        (["argument"], None, "", "argument"),
        (["--code", "option"], None, "", "option"),
        ([], "variable", "", "variable"),
        ([], None, "typed in\nnext line", "typed in"),
        (["argument"], "variable", "", "argument"),
        (["--code", "option"], "variable", "", "option"),
    ],
)
def test_where_the_code_comes_from(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variable: str | None,
    typed: str,
    expected: str,
) -> None:
    if variable:
        monkeypatch.setenv("UDPSEND_CODE", variable)
    type_in(monkeypatch, typed)
    assert main(["recv", *words]) == 0
    assert library.calls[0][1][0] == expected


def test_recv_options(library: Library, tmp_path: Path) -> None:
    assert main(["recv", "c", "-o", str(tmp_path), "-y", "--overwrite", "--verify"]) == 0
    assert library.calls[0][1] == ("c", str(tmp_path))
    assert library.keywords["accept"] is None
    assert library.keywords["overwrite"] is True
    assert library.keywords["confirm"] is not None


# --- wrong usage


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["send"], "Nothing to send"),
        (["recv", "4821", "marble", "otter"], "put dashes in place of its blanks"),
        (["send", "a", "--no-such"], "--no-such"),
        (["no-such"], "no-such"),
        (["send", "a", "--code", " "], "The code is empty"),
        (["send", "a", "--timeout", "0"], "not a number of seconds"),
        (["send", "a", "--timeout", "nan"], "not a number of seconds"),
        (["send", "a", "--timeout", "inf"], "not a number of seconds"),
        (["send", "a", "--timeout", "soon"], "soon"),
        (["send", "a", "--bind", "example.org"], "not an IP address"),
        (["send", "a", "--max-datagram", "100"], "100"),
        (["send", "a", "--limit", "5 apples"], "5 apples"),
        (["send", "a", "--limit", "5"], "5M, 500k"),
        (["send", "a", "--broker", "none", "--no-lan"], "no place to meet"),
        (["recv", "a", "--broker", "none", "--no-lan"], "add --manual"),
        (["send", "a", "-v", "-q"], "-v and -q"),
        (["recv", "a", "--code", "b"], "given twice"),
        (["partials", HOSTILE, HOSTILE], "unexpected extra argument"),
        (["serve", "--mqtt-port", "70000"], "70000"),
    ],
)
def test_wrong_usage(library: Library, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0].startswith("udpsend: ")
    assert says in captured.err
    assert len(lines) <= 2
    assert_harmless(captured.err)
    assert library.calls == []


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_recv_without_any_code(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for typed in ("", "\n"):
        type_in(monkeypatch, typed)
        assert main(["recv"]) == 2
        assert "No code was given" in capsys.readouterr().err
    assert library.calls == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"udpsend \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_the_help_fits_eighty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "..." not in "".join(lines[lines.index("Commands:") :]), "a summary is cut off"


def test_help_says_who_can_see_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("send", "recv"):
        assert main([command, "--help"]) == 0
        assert "Others on this machine can see it" in " ".join(capsys.readouterr().out.split())


# --- how it ends


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UdpsendError, 1),
        (errors.TransferFailed, 1),
        (errors.PeerError, 1),
        (errors.UsageError, 2),
        (errors.PeerNeverCame, 3),
        (errors.WrongCode, 4),
        (errors.NoDirectPath, 5),
        (errors.Refused, 6),
        (errors.LocalFileError, 7),
        (errors.Cancelled, 130),
    ],
)
@pytest.mark.parametrize("command", [["send", "f"], ["recv", "c"]])
def test_exit_codes(
    library: Library,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    error: type[errors.UdpsendError],
    status: int,
) -> None:
    library.telling = []
    library.ends_with = error("What happened.\nWhat to do.")
    assert main(command) == status
    assert capsys.readouterr().err == "udpsend: What happened.\n  What to do.\n"


def test_an_error_without_text_says_what_its_class_means(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = []
    library.ends_with = errors.PeerNeverCame()
    assert main(["send", "f"]) == 3
    assert capsys.readouterr().err == "udpsend: Nobody with the same code came within the timeout.\n"


def test_an_error_with_text_of_the_other_side_is_escaped(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = []
    library.ends_with = errors.Refused(f"The other side said: {HOSTILE}" + "\nmore" * 50)
    assert main(["send", "f"]) == 6
    text = capsys.readouterr().err
    assert_harmless(text)
    assert len(text.splitlines()) <= 3


def test_interrupt(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = []
    library.ends_with = KeyboardInterrupt()
    assert main(["send", "f"]) == 130
    assert capsys.readouterr().err == "udpsend: Stopped.\n"


def test_a_bug_is_called_one(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.telling = []
    library.ends_with = RuntimeError(HOSTILE)
    assert main(["send", "f"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("udpsend: this is a bug in udpsend: RuntimeError: ")
    assert "-vv" in text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 2
    assert_harmless(text)
    assert main(["send", "f", "-vv"]) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert_harmless(text)


@pytest.mark.parametrize(
    "raised", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), RuntimeError("can't start new thread")]
)
def test_what_the_system_does_not_give_is_no_bug(
    library: Library, capsys: pytest.CaptureFixture[str], raised: Exception
) -> None:
    library.telling = []
    library.ends_with = raised
    assert main(["send", "f"]) == 7
    assert "ulimit" in capsys.readouterr().err


def test_a_bug_in_a_helper_thread_is_called_one(
    monkeypatch: pytest.MonkeyPatch, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    def send(*arguments: Any, **keywords: Any) -> events.Verified:
        thread = threading.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()
        return VERIFIED

    monkeypatch.setattr(udpsend, "send", send)
    assert main(["send", "f"]) == 0
    assert "bug in udpsend: ZeroDivisionError" in capsys.readouterr().err


def test_tracebacks_of_errors_on_request(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.ends_with = errors.NoDirectPath("No.")
    assert main(["send", "f", "-v"]) == 5
    assert "Traceback" not in capsys.readouterr().err
    assert main(["send", "f", "-vv"]) == 5
    assert "Traceback" in capsys.readouterr().err

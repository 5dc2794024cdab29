"""Standard input and output as what is sent and where it goes: what cannot be asked for at the same time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from udpsend.cli.options import is_typed
from udpsend.cli.terminal import Terminal
from udpsend.errors import UsageError

DASH = "-"
STDIN, STDOUT = 0, 1
ASK = "\0"  # no argument of a command can be this: --text without a value

Function = TypeVar("Function", bound=Callable[..., Any])


def no_file_options(function: Function) -> Function:
    """--text and --name of `send`."""
    name = click.option(
        "--name", metavar="NAME", help="For PATH -: the name of the file that becomes of it. [default: stdin]"
    )
    text = click.option(
        "--text",
        is_flag=False,
        flag_value=ASK,
        metavar="TEXT",
        help="Send a message in place of files: it is shown on the other side. Without TEXT it is asked for; one that "
        "begins with a dash is given as --text=TEXT.",
    )
    return text(name(function))


class TakesText(click.Command):
    """click takes what begins with a dash for the next option, even behind `--text=`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        marked = [word.replace("=", f"={ASK}", 1) if word.startswith("--text=-") else word for word in args[:end]]
        return super().parse_args(ctx, marked + args[end:])


def asked_text(terminal: Terminal, text: str | None) -> str | None:
    """What --text gives, asked for where it gives nothing. Raises UsageError."""
    if text != ASK:
        return text and text.removeprefix(ASK)
    answer = terminal.ask("Text:")
    if not answer:
        raise UsageError("No text was given.")
    return answer


def check_what_to_send(paths: Sequence[str], text: str | None, name: str | None, *, asks: bool) -> bool:
    """Whether it is standard input. `asks`: answers are read from there. Raises UsageError."""
    is_stream = DASH in paths
    if not paths and text is None:
        raise UsageError("Nothing to send: name files or directories, or - for standard input, or give --text.")
    if paths and text is not None:
        raise UsageError("A text goes alone: leave out the paths, or --text.")
    if is_stream and len(paths) > 1:
        raise UsageError("Standard input goes alone: leave out - or the other paths (./- is a file of that name).")
    if is_stream and sys.stdin is None:
        raise UsageError("Standard input is closed: there is nothing to send.")
    if is_stream and asks:
        raise UsageError(
            "Standard input is what is sent: nothing can be asked there.\nLeave out --verify and --manual."
        )
    if name is not None and not is_stream:
        raise UsageError("--name is for standard input (-): files keep their names.")
    for option in ("follow", "exclude", "gitignore"):
        if (is_stream or text is not None) and is_typed(option):
            raise UsageError(f"--{option} is for files and directories, which are named in place of - or --text.")
    return is_stream


def give_up_stdout(terminal: Terminal, *, changes_files: bool) -> None:
    """The content goes there; all that is said goes to standard error. Raises UsageError."""
    if changes_files:
        raise UsageError(
            "Standard output meets no files that exist.\n"
            "Leave out --overwrite, --rename, --delta and --skip-existing, or name a directory."
        )
    if not terminal.out.is_open:
        raise UsageError("Standard output is closed: there is nowhere to put what comes.")
    if terminal.out.is_terminal:
        raise UsageError("Standard output is a terminal, which would obey what comes.\nLead it to a file or a pipe.")
    terminal.out = terminal.err

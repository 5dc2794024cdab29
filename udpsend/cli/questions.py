"""What is asked of the user: the code, the phrase of --verify, the texts of --manual."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from udpsend.cli.options import is_typed
from udpsend.cli.terminal import Terminal
from udpsend.errors import UsageError


def chosen_code(terminal: Terminal, arguments: Sequence[str], option: str | None) -> str:
    """The code from the argument, `--code`, the environment or the user, in this order."""
    if len(arguments) > 1:
        raise UsageError("A code is one word: put dashes in place of its blanks.\nA directory is named with -o DIR.")
    if arguments:
        if is_typed("code_option"):
            raise UsageError("The code was given twice, as an argument and with --code.\nLeave out one.")
        code: str | None = arguments[0]
    elif option is not None:
        code = option
    else:
        code = terminal.ask("Code:")
    if code is None or not code.strip():
        raise UsageError("No code was given.\nIt is what 'udpsend send' shows on the other machine.")
    return code


def text_question(terminal: Terminal) -> Callable[[int], str | None]:
    """For --manual: the texts of the other side."""

    def read_text(number: int) -> str | None:
        return terminal.ask(f"Text {number}, from the other side:")

    return read_text


def phrase_question(terminal: Terminal) -> Callable[[str], bool]:
    """For --verify: asked before anything moves."""

    def same_phrase(phrase: str) -> bool:
        return terminal.confirm(f"Phrase: {phrase}. Does the other side show the same one?")

    return same_phrase

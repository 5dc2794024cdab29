"""What is offered, in words, and the question whether to take it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from udpsend import events
from udpsend.cli.escape import escape
from udpsend.cli.quantity import size_text
from udpsend.cli.terminal import Terminal

FIRST_NAMES = 10
UNASKED = " With --yes it is taken without a question."


def ask_for(terminal: Terminal, offer: events.Offered, directory: str) -> bool:
    """Whether the user takes it into `directory`, or to standard output if that is empty; of several files the first
    names are shown, and all of them for the answer 'l'."""
    where = f"into {'this directory' if directory == '.' else directory}" if directory else "to standard output"
    if offer.is_text and directory:
        where = "to be shown here"
    question = f"Receive {offer_text(offer)}, {where}?"
    if _is_one_file(offer):
        return terminal.confirm(question, unasked=UNASKED)
    _list(terminal, islice(offer.listing, FIRST_NAMES))
    rest = offer.files + offer.directories + offer.links - FIRST_NAMES
    if rest > 0:
        terminal.note(f"    and {rest} more")
    return terminal.confirm(question, lambda: _list(terminal, offer.listing), UNASKED)


def _is_one_file(offer: events.Offered) -> bool:
    """Its name says all. So it is with a stream, and with a text."""
    return offer.files == 1 and not offer.directories and not offer.links


def _list(terminal: Terminal, entries: Iterable[tuple[str, int | None]]) -> None:
    for path, size in entries:
        terminal.note(f"    {escape(path)}" if size is None else f"    {escape(path)}, {size_text(size)}")


def offer_text(offer: events.Offered) -> str:
    """`name, 268.4 MB`, the name escaped; of several files also how many."""
    if offer.size is None:
        return f"{escape(offer.name)}, a stream of unknown size"
    size = sizes_text(offer.size, offer.holes)
    if _is_one_file(offer):
        return f"{escape(offer.name)}, {size}"
    parts = [f"{offer.files} file{'s' if offer.files != 1 else ''}"]
    if offer.directories:
        parts.append(f"{offer.directories} director{'ies' if offer.directories != 1 else 'y'}")
    if offer.links:
        parts.append(f"{offer.links} link{'s' if offer.links != 1 else ''}")
    return f"{escape(offer.name)} ({', '.join(parts)}), {size}"


def sizes_text(size: int, holes: int) -> str:
    return f"{size_text(size)} ({size_text(size - holes)} and holes)" if holes else size_text(size)

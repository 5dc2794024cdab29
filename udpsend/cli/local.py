"""The commands that need no other side: `partials` and `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from udpsend.cli.escape import escape
from udpsend.cli.paths import TypedPath
from udpsend.cli.quantity import size_text
from udpsend.cli.terminal import Terminal
from udpsend.errors import UsageError

DIFFERENT = 1
INCOMPLETE = 8


@click.command()
@click.argument("directory", type=TypedPath(), default=".")
@click.option("--clean", is_flag=True, help="Remove them, but for those that are being written.")
@click.pass_obj
def partials(terminal: Terminal, /, directory: str, clean: bool) -> None:
    """List what interrupted commands have left in DIRECTORY. That is the current one if it is not given."""
    from udpsend.files.leftovers import leftovers

    found = leftovers(Path(directory), clean)
    for leftover in found:
        if leftover.in_use:
            state = "being written"
        elif clean:
            state = "removed"
        elif leftover.goes_on:
            state = "goes on with the same commands"
        else:
            state = "cannot go on, the same commands begin anew"
        terminal.result(f"{escape(leftover.name)}: {size_text(leftover.size)}, {state}")
    if not found:
        terminal.note("Nothing was left.")


@click.command()
@click.argument("sums", metavar="FILE.b3", type=TypedPath())
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=TypedPath())
@click.option("--save", is_flag=True, help="Write FILE.b3, with the sums of PATH... and all that is below.")
@click.pass_obj
def verify(terminal: Terminal, /, sums: str, paths: tuple[str, ...], save: bool) -> int:
    """Compare files with the BLAKE3 sums saved in FILE.b3. They are from --save, or from b3sum.

    The exit code is 1 if a file is not what it was. With --save it is 8 if there is something below PATH that cannot be
    read (pipes, sockets, devices, links that lead nowhere): that is named, and the rest is saved.
    """
    from udpsend.files.sums import check

    if save != bool(paths):
        raise UsageError("To save sums: udpsend verify --save FILE.b3 PATH...\nTo compare: udpsend verify FILE.b3")
    if save:
        return _save(terminal, Path(sums), [Path(path) for path in paths])
    wrong = count = 0
    for checked in check(Path(sums)):
        count += 1
        if checked.problem is not None:
            wrong += 1
            terminal.result(f"{escape(checked.path)}: {escape(checked.problem)}", even_if_quiet=True)
    terminal.result(f"{count - wrong} of {count} files are what they were.")
    return DIFFERENT if wrong else 0


def _save(terminal: Terminal, sums: Path, paths: list[Path]) -> int:
    from udpsend.files.sums import save_sums

    skipped = 0

    def skip(path: str, why: str) -> None:
        nonlocal skipped
        skipped += 1
        terminal.warning(f"{escape(path)} is left out: {escape(why)}.")

    count = save_sums(sums, paths, skip)
    more = f"; {skipped} could not be read" if skipped else ""
    terminal.result(f"{count} sum{'s are' if count != 1 else ' is'} in {sums}{more}.")
    return INCOMPLETE if skipped else 0

"""The commands: `send`, `recv`, `serve`; `doctor`, and those without another side (`local`), have modules of their own.
Each parses, builds what the library wants, calls it, and is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from udpsend.cli.collector import collect_rarely
from udpsend.cli.doctor import doctor
from udpsend.cli.local import INCOMPLETE, partials, verify
from udpsend.cli.options import (
    CODE_HELP,
    config_from,
    option_or_variable,
    peer_options,
    set_verbosity,
    verbosity_options,
)
from udpsend.cli.paths import TypedPath
from udpsend.cli.pipes import (
    DASH,
    STDIN,
    STDOUT,
    TakesText,
    asked_text,
    check_what_to_send,
    give_up_stdout,
    no_file_options,
)
from udpsend.cli.questions import chosen_code, phrase_question, text_question
from udpsend.cli.terminal import Terminal
from udpsend.config import Role
from udpsend.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from udpsend.events import Offered

EXIT_CODES = """\b
Exit codes:
    0  done, and verified          5  no direct path between the two
    1  the transfer failed         6  refused, or the other side stopped
    2  wrong usage                 7  local file or disk
    3  the other side never came   8  done, but for what could not be sent
    4  wrong code                130  stopped here (Ctrl-C, SIGTERM)
"""


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"udpsend {version('udpsend')}")
        context.exit()


class Commands(click.Group):
    """click prints an empty line for an interrupt and forgets where it came from; here it is an error like others."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interrupt:
            raise Cancelled("Stopped.") from interrupt


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Send a file straight to another machine: peer to peer over UDP, through NATs, encrypted end to end.

    \b
    On one machine:    udpsend send FILE...
    On the other one:  udpsend recv CODE
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


@cli.command(cls=TakesText)
@click.argument("paths", metavar="PATH...", nargs=-1, type=TypedPath(allow_dash=True))
@no_file_options
@option_or_variable("--code", metavar="WORD", help=CODE_HELP.format(other="a generated code (the default)"))
@click.option("--follow", is_flag=True, help="Send what symbolic links point to in their place.")
@option_or_variable(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Do not send what matches, as in a .gitignore: '*.tmp', 'build/', '/photos/raw'. Repeatable.",
)
@click.option("--gitignore", is_flag=True, help="Do not send what .gitignore files say, nor .git itself.")
@click.option("--manual", is_flag=True, help="Meet by two texts that are copied by hand, without broker or multicast.")
@option_or_variable("--no-qr", is_flag=True, help="Do not draw the code as QR.")
@click.option("--verify", is_flag=True, help="Show a phrase to compare with the other side before anything moves.")
@peer_options
@click.pass_obj
def send(
    terminal: Terminal,
    /,
    paths: tuple[str, ...],
    text: str | None,
    name: str | None,
    code: str | None,
    follow: bool,
    exclude: tuple[str, ...],
    gitignore: bool,
    manual: bool,
    no_qr: bool,
    verify: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> int:
    """Send files and directories to whoever types the code. With PATH - it is what comes from standard input.

    What cannot be sent (sockets, devices, what may not be read, links that lead out) is named on both sides, the rest
    is sent, and the exit code of both is 8.
    """
    set_verbosity(terminal, verbose, quiet)
    if code is not None and not code.strip():
        raise UsageError("The code is empty.\nLeave out --code to have one made.")
    is_stream = check_what_to_send(paths, text, name, asks=manual or verify)
    config = config_from(**options, by_hand=manual)

    import udpsend
    from udpsend.cli.display import Display

    text = asked_text(terminal, text)
    display = Display(terminal, Role.SENDER, config, qr=not no_qr, by_hand=manual, verify=verify)
    library_send = udpsend.send  # imports all that a transfer needs
    collect_rarely()
    try:
        verified = library_send(
            () if is_stream else paths,
            stream=STDIN if is_stream else None,
            name=name or "stdin",
            text=text,
            code=code,
            follow=follow,
            exclude=exclude,
            gitignore=gitignore,
            config=config,
            on_event=display,
            confirm=phrase_question(terminal) if verify else None,
            read_text=text_question(terminal) if manual else None,
        )
    finally:
        display.close()
    return INCOMPLETE if verified.skipped else 0


@cli.command()
@click.argument("code", metavar="[CODE]", nargs=-1)
@option_or_variable(
    "--code",
    "code_option",
    metavar="WORD",
    help=CODE_HELP.format(other="the question for it (the default)"),
)
@option_or_variable(
    "-o",
    "--output",
    "directory",
    type=TypedPath(allow_dash=True),
    default=".",
    metavar="DIR",
    help="Directory to put it into, or - for one file to standard output. [default: the current one]",
)
@click.option("--manual", is_flag=True, help="Meet by two texts that are copied by hand, without broker or multicast.")
@click.option("-y", "--yes", is_flag=True, help="Accept what is offered without asking.")
@click.option("--overwrite", is_flag=True, help="Replace files of the same name.")
@click.option("--rename", is_flag=True, help="Give it another name, such as 'photos (1)', where that is taken.")
@click.option("--delta", is_flag=True, help="Replace files of the same name, and receive only the parts that differ.")
@click.option("--skip-existing", is_flag=True, help="Do not receive files that are there with the same size and time.")
@click.option("--verify", is_flag=True, help="Show a phrase to compare with the other side before anything moves.")
@peer_options
@click.pass_obj
def recv(
    terminal: Terminal,
    /,
    code: tuple[str, ...],
    code_option: str | None,
    directory: str,
    manual: bool,
    yes: bool,
    overwrite: bool,
    rename: bool,
    delta: bool,
    skip_existing: bool,
    verify: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> int:
    """Receive what was offered under CODE.

    Without CODE it is asked for, so that it shows neither in the list of processes nor in the shell's history.
    """
    set_verbosity(terminal, verbose, quiet)
    to_stdout = directory == DASH
    if to_stdout:
        give_up_stdout(terminal, changes_files=overwrite or rename or delta or skip_existing)
    config = config_from(**options, by_hand=manual)
    chosen = chosen_code(terminal, code, code_option)

    import udpsend
    from udpsend.cli.display import Display
    from udpsend.cli.offer import ask_for

    def accept(offer: Offered) -> bool:
        return ask_for(terminal, offer, "" if to_stdout else directory)

    display = Display(terminal, Role.RECEIVER, config, qr=manual, by_hand=manual)
    library_receive = udpsend.receive
    collect_rarely()
    try:
        verified = library_receive(
            chosen,
            directory,
            stream=STDOUT if to_stdout else None,
            overwrite=overwrite,
            rename=rename,
            delta=delta,
            skip_existing=skip_existing,
            accept=None if yes else accept,
            config=config,
            on_event=display,
            confirm=phrase_question(terminal) if verify else None,
            read_text=text_question(terminal) if manual else None,
        )
    finally:
        display.close()
    return INCOMPLETE if verified.skipped else 0


@cli.command()
@option_or_variable(
    "--host",
    default="",
    metavar="ADDRESS",
    prefix="UDPSEND_SERVE_",
    help="Local address to listen on. [default: all]",
)
@option_or_variable(
    "--mqtt-port",
    type=click.IntRange(0, 65535),
    default=1883,
    metavar="PORT",
    prefix="UDPSEND_SERVE_",
    show_default=True,
    help="TCP port of the MQTT broker; 0 for any free one.",
)
@option_or_variable(
    "--stun-port",
    type=click.IntRange(0, 65535),
    default=3478,
    metavar="PORT",
    prefix="UDPSEND_SERVE_",
    show_default=True,
    help="UDP port of the STUN responder; 0 for any free one.",
)
@verbosity_options
@click.pass_obj
def serve(terminal: Terminal, /, host: str, mqtt_port: int, stun_port: int, verbose: int, quiet: bool) -> None:
    """Run a rendezvous server: an MQTT broker and STUN responder.

    Peers that get the options it prints need no other server. Files never pass through it.
    """
    set_verbosity(terminal, verbose, quiet)

    from udpsend.cli.serving import run_server

    collect_rarely()
    run_server(terminal, host, mqtt_port, stun_port)


cli.add_command(doctor)
cli.add_command(partials)
cli.add_command(verify)

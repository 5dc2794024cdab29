"""`udpsend doctor`: what stands between this host and a direct path, for people and (`--json`) for programs."""

from __future__ import annotations

import json
from typing import Any

import click

from udpsend.cli.options import CODE_HELP, config_from, option_or_variable, peer_options, set_verbosity
from udpsend.cli.terminal import Terminal
from udpsend.config import Config, Role
from udpsend.errors import NoDirectPath, UsageError

LIFETIME = 180.0  # seconds; longer than the two minutes that RFC 4787 asks for
LONGEST_LIFETIME = 3600.0


def _lifetime(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 1 <= value <= LONGEST_LIFETIME:
        raise click.BadParameter(f"{value:g} is not a number of seconds between 1 and {LONGEST_LIFETIME:.0f}.")
    return value


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option(
    "--lifetime",
    type=float,
    is_flag=False,
    flag_value=LIFETIME,
    callback=_lifetime,
    metavar="[SECONDS]",
    help=f"Also measure how long an idle mapping lives; takes SECONDS, {LIFETIME:.0f} if left out.",
)
@option_or_variable(
    "--code",
    metavar="WORD",
    help="Try a pair: run the same command on the other machine, too. Nothing is sent. "
    + CODE_HELP.format(other="no option"),
)
@peer_options
@click.pass_obj
def doctor(
    terminal: Terminal,
    /,
    as_json: bool,
    lifetime: float | None,
    code: str | None,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> int:
    """Examine this network: with whom would a direct path work?

    Asks the brokers, the STUN servers and the router; sends no file. Ends with 0 if a direct path to peers behind
    ordinary NATs would work, with 5 if not; with --code, if the pair found one, and with 3 if nobody came.
    """
    set_verbosity(terminal, verbose, quiet)
    config = config_from(**options)
    if code is not None and not code.strip():
        raise UsageError("The code is empty.\nLeave out --code to examine this side alone.")

    from udpsend import doctor as library
    from udpsend.cli import doctor_report
    from udpsend.doctor.outlook import works_with_ordinary_nats

    terminal.note("Asking brokers, STUN servers and the router; this takes some seconds ...")
    diagnosis = library.diagnose(config, lifetime=lifetime)
    found: dict[str, Any] = diagnosis.to_json()
    if not as_json:
        terminal.picture(doctor_report.picture(diagnosis, unicode=terminal.out.can_show("──▶┌┐└┘│✕")))
        for line in doctor_report.lines(diagnosis):
            terminal.result(line)
    works = works_with_ordinary_nats(diagnosis)
    if code is not None:
        found["pair"], works = _try_pair(terminal, code, config, as_json)
    found["direct_path"] = works
    if as_json:
        for line in json.dumps(found, indent=2).splitlines():
            terminal.result(line, even_if_quiet=True)
    return 0 if works else NoDirectPath.exit_code


def _try_pair(terminal: Terminal, code: str, config: Config, as_json: bool) -> tuple[dict[str, Any], bool]:
    """What `--json` says of the pair, and whether it found a path. Other failures than the lack of one are raised."""
    from udpsend import doctor as library
    from udpsend.cli.display import Display
    from udpsend.cli.quantity import duration_text
    from udpsend.events import PathKind

    display = Display(terminal, Role.RECEIVER, config)
    display.waiting = "Trying the pair: run the same command on the other machine (Ctrl-C stops) ..."
    try:
        report = library.try_pair(code, config, display)
    except NoDirectPath as error:
        terminal.warning(" ".join(str(error).splitlines()))
        return {"path": None, "reason": str(error)}, False
    finally:
        display.close()
    path = report.path
    if not as_json:
        if path.kind not in (PathKind.THIS_HOST, PathKind.LOCAL_NETWORK):  # those are often found before it is known
            terminal.result(f"This side has {report.this_side}, the other {report.other_side}.")
        what = "only a relayed path" if path.kind is PathKind.RELAYED else "a direct path"
        terminal.result(f"The pair has {what} after {duration_text(report.seconds)}: {path.kind.value}.")
    return {
        "this_side": report.this_side,
        "other_side": report.other_side,
        "path": path.kind.value,
        "address": list(path.address),
        "round_trip": path.round_trip,
        "seconds": report.seconds,
    }, path.kind is not PathKind.RELAYED

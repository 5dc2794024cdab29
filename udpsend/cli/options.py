"""The options that both peers share, each with its environment variable, and the `Config` that they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from udpsend.cli.terminal import Terminal
from udpsend.config import (
    DEFAULT_BROKERS,
    DEFAULT_STUN_SERVERS,
    LARGEST_DATAGRAM,
    LONGEST_TIMEOUT,
    SLOWEST_LIMIT,
    SMALLEST_DATAGRAM,
    Config,
)
from udpsend.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

NO_SERVER = "none"
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


def _ip_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    import ipaddress

    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not an IP address of this machine, such as 192.168.1.7.") from error


def _seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value) or not 0 < value <= LONGEST_TIMEOUT:
        raise click.BadParameter(f"{value:g} is not a number of seconds between 0 and {LONGEST_TIMEOUT:.0f}.")
    return value


def _rate(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if not value:
        return None
    number, unit = (value[:-1], value[-1].lower()) if value[-1].lower() in _UNITS else (value, "")
    try:
        rate = float(number) * _UNITS.get(unit, 1)
    except ValueError:
        rate = math.nan
    if not SLOWEST_LIMIT <= rate < math.inf:
        raise click.BadParameter(
            f"{value!r} is not a rate in bytes per second, such as 5M, 500k or 1200000; the least is 1k."
        )
    return rate


def _hosts(urls: tuple[str, ...]) -> str:
    """Of the default brokers, each of which is reached in several ways."""
    return ", ".join(dict.fromkeys(url.partition("://")[2].rpartition(":")[0] for url in urls))


def option_or_variable(*names: str, prefix: str = "UDPSEND_", **attributes: Any) -> Callable[[Function], Function]:
    """An option that an environment variable gives, too: `prefix`, and its long name."""
    long = next(name for name in names if name.startswith("--"))
    variable = prefix + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


CODE_HELP = (
    "The code. Others on this machine can see it here, in the list of processes; "
    "UDPSEND_CODE and {other} do not show it there."
)

_OPTIONS = (
    option_or_variable(
        "--broker",
        "brokers",
        multiple=True,
        metavar="URL",
        help="MQTT broker to meet at: mqtts://, mqtt://, wss:// or ws://, with user:password@ where needed, "
        "?ca=FILE for certificates of your own. "
        f"Repeatable; '{NO_SERVER}' for no broker. [default: {_hosts(DEFAULT_BROKERS)}]",
    ),
    option_or_variable(
        "--stun",
        "stun_servers",
        multiple=True,
        metavar="HOST:PORT",
        help="STUN server that tells the public address. "
        f"Repeatable; '{NO_SERVER}' for no server. [default: {', '.join(DEFAULT_STUN_SERVERS)}]",
    ),
    option_or_variable(
        "--no-lan",
        is_flag=True,
        help="Do not look for the other side by multicast on the local network and on this host.",
    ),
    option_or_variable(
        "--no-port-mapping",
        is_flag=True,
        help="Do not ask the router for a port mapping (PCP, NAT-PMP, UPnP).",
    ),
    option_or_variable(
        "--relay",
        metavar="URL",
        help="TURN server to go through where there is no direct path: turn:USER:PASSWORD@HOST[:PORT], turns: for TLS, "
        "?secret=... in place of a password, ?ca=FILE. Others on this machine can see it here. [default: none]",
    ),
    option_or_variable("--bind", metavar="ADDRESS", callback=_ip_address, help="Use this local IP address only."),
    option_or_variable(
        "--timeout",
        type=float,
        default=Config().timeout,
        metavar="SECONDS",
        callback=_seconds,
        show_default=True,
        help="How long to wait for the other side to come.",
    ),
    option_or_variable(
        "--no-offload",
        is_flag=True,
        help="Do not use UDP segmentation offload (UDP_SEGMENT, UDP_GRO).",
    ),
    option_or_variable(
        "--max-datagram",
        "max_datagram_size",
        type=click.IntRange(SMALLEST_DATAGRAM, LARGEST_DATAGRAM),
        metavar="BYTES",
        help="Send no larger UDP payloads, whatever the path carries.",
    ),
    option_or_variable(
        "--congestion",
        type=click.Choice(("bbr", "cubic")),
        default=Config().congestion,
        show_default=True,
        help="How the sender finds its rate: by a model of the path (bbr), or by losses as TCP does (cubic).",
    ),
    option_or_variable(
        "--limit",
        metavar="RATE",
        callback=_rate,
        help="Send or receive no faster than so many bytes per second: 5M, 500k. [default: no limit]",
    ),
    option_or_variable(
        "--background",
        is_flag=True,
        help="Send or receive with what others leave of the path: for long transfers that must not disturb. "
        "It takes the place of --congestion.",
    ),
)

_VERBOSITY = (
    option_or_variable("-v", "--verbose", count=True, help="Show mailboxes, STUN and counters; -vv also tracebacks."),
    option_or_variable("-q", "--quiet", is_flag=True, help="Show the code, questions, warnings and errors only."),
)


def verbosity_options(function: Function) -> Function:
    for decorate in reversed(_VERBOSITY):
        function = decorate(function)
    return function


def peer_options(function: Function) -> Function:
    """The options of `send`, `recv` and `doctor`; they arrive as keywords, for `config_from` and `set_verbosity`."""
    function = verbosity_options(function)
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


def config_from(
    brokers: tuple[str, ...],
    stun_servers: tuple[str, ...],
    no_lan: bool,
    no_port_mapping: bool,
    no_offload: bool,
    relay: str | None,
    *,
    by_hand: bool = False,
    **others: Any,
) -> Config:
    """The library's configuration; `others` are its fields as they are. Raises UsageError where the two could not meet
    anywhere, nor do so `by_hand`."""
    config = Config(
        brokers=_servers(brokers, DEFAULT_BROKERS),
        stun_servers=_servers(stun_servers, DEFAULT_STUN_SERVERS),
        lan=not no_lan,
        port_mapping=not no_port_mapping,
        offload=not no_offload,
        relay=relay or None,
        **others,
    )
    if not config.brokers and not config.lan and not by_hand:
        raise UsageError(
            f"With --broker {NO_SERVER} and --no-lan the two sides have no place to meet.\n"
            "Leave out one, or add --manual on both sides."
        )
    return config


def _servers(given: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    if not given:
        return default
    return tuple(server for server in given if server.lower() != NO_SERVER)


def is_typed(name: str) -> bool:
    """Whether this parameter stands on the command line, and is not from a variable or the default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def set_verbosity(terminal: Terminal, verbose: int, quiet: bool) -> None:
    """Tell the terminal; also catch what libraries log, which must never reach the screen unescaped."""
    import logging

    if verbose and quiet:
        if is_typed("verbose") == is_typed("quiet"):
            raise UsageError("-v and -q (or UDPSEND_VERBOSE and UDPSEND_QUIET) together say nothing.\nLeave out one.")
        quiet = is_typed("quiet")
    terminal.verbosity = -1 if quiet else min(verbose, 2)

    class ToTerminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.debug(f"{record.name}: {record.getMessage()}", level=2)

    level = logging.DEBUG if terminal.verbosity >= 2 else logging.WARNING
    logging.basicConfig(level=level, handlers=[ToTerminal()], force=True)

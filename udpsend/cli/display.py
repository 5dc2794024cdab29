"""Events into lines: what `send` and `receive` tell is all that is known here.

The order in which a person sees things: the code, who came, by which path, what is offered, how far it is, the proof.
"""

from __future__ import annotations

import io
import shlex
from urllib.parse import urlsplit, urlunsplit

from udpsend import events
from udpsend.cli.escape import escape
from udpsend.cli.progress import ProgressView, open_progress
from udpsend.cli.quantity import duration_text, rate_text, round_trip_text, size_text
from udpsend.cli.terminal import Terminal
from udpsend.config import Config, Role

PASSWORD_PLACEHOLDER = "PASSWORD"  # noqa: S105  # stands where the password is not shown

WHERE = {
    events.PathKind.THIS_HOST: "on this host",
    events.PathKind.LOCAL_NETWORK: "on the local network",
    events.PathKind.IPV6: "on the internet, reached over IPv6",
    events.PathKind.INTERNET: "on the internet, reached through NAT",
}


class Display:
    """Called with each event, from whatever thread the library uses; one at a time."""

    def __init__(self, terminal: Terminal, role: Role, config: Config, *, qr: bool = False) -> None:
        self._terminal = terminal
        self._role = role
        self._config = config
        self._qr = qr
        self._name = ""
        self._already = 0
        self._progress: ProgressView | None = None
        self._progress_opened = False
        # Brokers that have not been reached yet; URLs of one host are alternatives and count as one.
        self._brokers_missing = {_host(url) for url in config.brokers}

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.CodeReady():
                self._show_code(event)
            case events.MeetingPlace(name, up):
                self._show_debug(event)
                self._watch_brokers(name, up)
            case events.PublicAddress() | events.PortMapped() | events.Statistics():
                self._show_debug(event)
            case events.WrongGuess(remaining):
                self._show_wrong_guess(remaining)
            case events.PeerMet():
                self._terminal.note("The other side is there and knows the code.")
            case events.PathFound():
                self._show_path(event)
            case events.Offered():
                self._show_offer(event)
            case events.Accepted(already):
                self._show_accepted(already)
            case events.Progress(done, total):
                self._show_progress(done, total)
            case events.Verifying():
                self.close()
                self._terminal.note("All bytes are there. Comparing the hashes of both sides ...")
            case events.Verified():
                self._show_verified(event)

    def close(self) -> None:
        """Leave the bar where it is; the next line goes below it."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _show_code(self, event: events.CodeReady) -> None:
        terminal = self._terminal
        if event.weak:
            terminal.warning(event.weak)
        if self._role is Role.RECEIVER:
            terminal.note("Waiting for the sender (Ctrl-C stops) ...")
            return
        if terminal.verbosity < 0:
            terminal.result(event.code, even_if_quiet=True)
            return
        terminal.result(f"Code: {event.code}")
        if self._qr and terminal.out.is_terminal and terminal.err.is_terminal:
            self._show_qr(event.code)
        command, hides_password = command_for_other_side(event.code, self._config)
        terminal.result("On the other machine:")
        terminal.result(f"    {command}")
        if hides_password:
            terminal.note(f"(with the broker's password in place of {PASSWORD_PLACEHOLDER})")
        terminal.note("Waiting for the other side (Ctrl-C stops) ...")

    def _show_qr(self, code: str) -> None:
        rows = qr_rows(code)
        if self._terminal.out.can_show("".join(rows)):
            self._terminal.picture(rows)

    def _show_debug(
        self, event: events.MeetingPlace | events.PublicAddress | events.PortMapped | events.Statistics
    ) -> None:
        match event:
            case events.MeetingPlace(name, up, detail):
                text = f"mailbox {name}: {'up' if up else 'down'}"
            case events.PublicAddress(server, address, detail):
                text = f"STUN {server}: {_address_text(address) if address else 'no answer'}"
            case events.PortMapped(protocol, address, detail):
                text = f"port mapping by {protocol}: {_address_text(address)}" if address else "no port mapping"
            case events.Statistics(counters):
                detail = ""
                text = "counters: " + ", ".join(f"{name} {value:g}" for name, value in sorted(counters.items()))
        self._terminal.debug(f"{text} ({detail})" if detail else text)

    def _watch_brokers(self, name: str, up: bool) -> None:
        """One broker that is down is nothing to tell; all of them are what a user would wait for in vain."""
        if up and _host(name) is not None:
            self._brokers_missing.clear()
        elif _host(name) in self._brokers_missing:
            self._brokers_missing.discard(_host(name))
            if not self._brokers_missing:
                rest = "The two can meet on the local network only." if self._config.lan else "Trying again."
                self._terminal.warning(f"no broker can be reached (-v shows why). {rest}")

    def _show_wrong_guess(self, remaining: int) -> None:
        what = "Somebody came with another code: a typing error, or a guess."
        more = f"{remaining} more such and this side stops." if remaining else "This side stops now."
        self._terminal.warning(f"{what} {more}")

    def _show_path(self, event: events.PathFound) -> None:
        where = WHERE[event.kind]
        self._terminal.note(f"The other side is {where}.")
        self._terminal.note(
            f"Direct path: {event.kind.value}, {_address_text(event.address)}, "
            f"round trip {round_trip_text(event.round_trip)}"
        )

    def _show_offer(self, event: events.Offered) -> None:
        self._name = event.name
        if self._role is Role.SENDER:
            self._terminal.note(f"Offering {offer_text(event)}; the other side is asked ...")
        else:
            self._terminal.note(f"Offered: {offer_text(event)}")

    def _show_accepted(self, already: int) -> None:
        self._already = already
        if self._role is Role.SENDER:
            self._terminal.note("Accepted.")
        if already:
            self._terminal.note(f"{size_text(already)} of an earlier attempt are there and are not sent again.")

    def _show_progress(self, done: int, total: int) -> None:
        if not self._progress_opened:
            self._progress_opened = True
            self._progress = open_progress(self._terminal, self._name, min(self._already, done), total)
        if self._progress is not None:
            self._progress.advance(done)

    def _show_verified(self, event: events.Verified) -> None:
        self.close()
        what = "Sent" if self._role is Role.SENDER else "Received"
        where = f" as {escape(event.path)}" if event.path else ""
        moved = max(0, event.size - self._already)
        rate = f", {rate_text(moved / event.seconds)}" if event.seconds > 0 and moved else ""
        self._terminal.debug(f"BLAKE3 {event.digest}")
        self._terminal.result(
            f"{what} {escape(event.name)}{where}: "
            f"{size_text(event.size)} in {duration_text(event.seconds)}{rate}, verified"
        )


def offer_text(offer: events.Offered) -> str:
    """`name, 268.4 MB`, the name escaped."""
    files = f", {offer.files} files" if offer.files != 1 else ""
    return f"{escape(offer.name)}{files}, {size_text(offer.size)}"


def command_for_other_side(code: str, config: Config) -> tuple[str, bool]:
    """What to type on the other machine, and whether a broker's password was left out of it.

    Only options that decide where the two meet are in it, and only where they are not the default.
    """
    default = Config()
    words = ["udpsend", "recv"]
    hides_password = False
    if config.brokers != default.brokers:
        for url in config.brokers or ("none",):
            shown = _without_password(url)
            hides_password |= shown != url
            words += ["--broker", shown]
    if config.stun_servers != default.stun_servers:
        for server in config.stun_servers or ("none",):
            words += ["--stun", server]
    words += ["--", code] if code.startswith("-") else [code]
    return shlex.join(words), hides_password


def qr_rows(text: str) -> list[str]:
    """The QR code of `text` in half blocks, two modules to a character, light on a dark terminal."""
    import segno

    drawing = io.StringIO()
    segno.make_qr(text).terminal(drawing, border=2, compact=True)
    return drawing.getvalue().splitlines()


def _host(url: str) -> str | None:
    """The host of a URL; None for what is no URL, such as the name of the local network's mailbox."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
    except ValueError:  # not a URL; the library says so
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{PASSWORD_PLACEHOLDER}@{host}"))


def _address_text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

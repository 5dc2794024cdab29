"""Events into lines: what `send` and `receive` tell is all that is known here.

The order in which a person sees things: the code, who came, by which path, what is offered, how far it is, the proof.
"""

from __future__ import annotations

import shutil
import time
from urllib.parse import urlsplit

from udpsend import events
from udpsend.cli.escape import escape
from udpsend.cli.invitation import PASSWORD_PLACEHOLDER, command_for_other_side, qr_rows
from udpsend.cli.offer import offer_text, sizes_text
from udpsend.cli.progress import ProgressView, open_progress
from udpsend.cli.quantity import address_text, duration_text, rate_text, round_trip_text, size_text
from udpsend.cli.terminal import Terminal
from udpsend.config import Config, Role

SKIPPED_LINES = 10

WHERE = {
    events.PathKind.THIS_HOST: "on this host",
    events.PathKind.LOCAL_NETWORK: "on the local network",
    events.PathKind.IPV6: "on the internet, reached over IPv6",
    events.PathKind.INTERNET: "on the internet, reached through NAT",
    events.PathKind.RELAYED: "reached through a relay: no direct path was found",
}


class Display:
    """Called with each event, from whatever thread the library uses; one at a time."""

    waiting = "Waiting for the sender (Ctrl-C stops) ..."

    def __init__(
        self,
        terminal: Terminal,
        role: Role,
        config: Config,
        *,
        qr: bool = False,
        by_hand: bool = False,
        verify: bool = False,
    ) -> None:
        self._terminal = terminal
        self._role = role
        self._config = config
        self._qr = qr
        self._by_hand = by_hand
        self._verify = verify
        self._name = ""
        self._already = 0
        self._accepted_at = 0.0
        self._is_relayed = False
        self._relay_problem = ""
        self._progress: ProgressView | None = None
        self._progress_opened = False
        # Brokers that have not been reached yet; URLs of one host are alternatives and count as one.
        self._brokers_missing = {_host(url) for url in config.brokers}
        self._has_lan = config.lan

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.CodeReady():
                self._show_code(event)
            case events.NoRoom(reason):
                self._terminal.warning(f"{reason} Only a message can be received.")
            case events.MeetingPlace():
                self._show_debug(event)
                self._watch_places(event)
            case events.PublicAddress() | events.PortMapped() | events.Statistics():
                self._show_debug(event)
            case events.RelayReady():
                self._show_relay(event)
            case events.TextToCarry(number, text):
                self._terminal.note(f"Text {number} of 2, to be given to the other side as it is:")
                self._terminal.result(text, even_if_quiet=True)
                self._show_qr(text)
            case events.TextRejected(number, reason):
                self._terminal.warning(f"that is not the other side's text {number}: {reason}. Give it again.")
            case events.WrongGuess(remaining):
                self._show_wrong_guess(remaining)
            case events.PeerMet() if self._by_hand and self._role is Role.RECEIVER:
                self._terminal.note("Waiting for the sender, which needs text 2 (Ctrl-C stops) ...")
            case events.PeerMet():
                self._terminal.note("The other side is there and knows the code.")
            case events.PathLost():
                self.close()
                self._terminal.warning(
                    "nothing is heard from the other side. Looking for another path. "
                    "If it was started anew, stop this side (Ctrl-C) and start it again, too."
                )
            case events.PathFound():
                self.close()
                self._show_path(event)
            case events.OfferLate() if self._role is Role.SENDER:
                self._terminal.note("Still going through what is to be sent ...")
            case events.OfferLate():
                self._terminal.note("The sender still goes through its files, or is asked for the phrase ...")
            case events.Offered():
                self._show_offer(event)
            case events.Skipped(count, first):
                self._show_skipped(count, first)
            case events.Preparing():
                self._terminal.note("Preparing the files here ...")
            case events.Accepted(already):
                self._show_accepted(already)
            case events.Progress(done, total):
                self._show_progress(done, total)
            case events.Verifying():
                self.close()
                self._terminal.note("All bytes are there. Comparing the hashes of both sides ...")
            case events.TextReceived(text):
                self.close()
                self._terminal.message(text)
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
            if not self._by_hand:
                terminal.note(self.waiting)
            return
        if terminal.verbosity < 0:
            terminal.result(event.code, even_if_quiet=True)
            return
        terminal.result(f"Code: {event.code}")
        self._show_qr(event.code)
        command, hides_password = command_for_other_side(
            event.code, self._config, by_hand=self._by_hand, verify=self._verify
        )
        terminal.result("On the other machine:")
        terminal.result(f"    {command}")
        if hides_password:
            terminal.note(f"(with the broker's password in place of {PASSWORD_PLACEHOLDER})")
        terminal.note("Waiting for the other side (Ctrl-C stops) ...")

    def _show_qr(self, text: str) -> None:
        """For people who watch, and only if it is not wider than what they see."""
        terminal = self._terminal
        if not self._qr or terminal.verbosity < 0 or not (terminal.out.is_terminal and terminal.err.is_terminal):
            return
        rows = qr_rows(text)
        if len(rows[0]) <= shutil.get_terminal_size().columns and terminal.out.can_show("".join(rows)):
            terminal.picture(rows)

    def _show_debug(
        self, event: events.MeetingPlace | events.PublicAddress | events.PortMapped | events.Statistics
    ) -> None:
        match event:
            case events.MeetingPlace(name, up, detail):
                text = f"mailbox {name}: {'up' if up else 'down'}"
            case events.PublicAddress(server, address, why_not):
                detail = ""
                text = f"STUN {server}: {address_text(address) if address else why_not}"
            case events.PortMapped(protocol, address, detail):
                text = f"port mapping by {protocol}: {address_text(address)}" if address else "no port mapping"
            case events.Statistics(counters):
                detail = ""
                text = "counters: " + ", ".join(f"{name} {value:g}" for name, value in sorted(counters.items()))
        self._terminal.debug(f"{text} ({detail})" if detail else text)

    def _watch_places(self, place: events.MeetingPlace) -> None:
        """One broker that is down is nothing to tell; all of them are what a user would wait for in vain."""
        name = place.name
        if _host(name) is None:
            self._has_lan = place.up
            if not place.up and not self._config.brokers:
                self._terminal.warning("multicast cannot be used (-v shows why): there is no place to meet.")
        elif place.up:
            self._brokers_missing.clear()
        elif _host(name) in self._brokers_missing:
            self._brokers_missing.discard(_host(name))
            if not self._brokers_missing:
                rest = "The two can meet on the local network only." if self._has_lan else "Trying again."
                is_only_one = len({_host(url) for url in self._config.brokers}) == 1
                why = f": {escape(place.detail)}" if is_only_one else " (-v shows why)"
                self._terminal.warning(f"no broker can be reached{why}. {rest}")

    def _show_wrong_guess(self, remaining: int) -> None:
        what = "Somebody came with another code: a typing error, or a guess."
        if self._by_hand:
            what = "Text 2 was made with another code. Let the other side begin again, with the right one and text 1."
        more = f"{remaining} more such and this side stops." if remaining else "This side stops now."
        self._terminal.warning(f"{what} {more}")

    def _show_path(self, event: events.PathFound) -> None:
        where = WHERE[event.kind]
        self._terminal.note(f"The other side is {where}.")
        self._is_relayed = event.kind is events.PathKind.RELAYED
        path = "Path" if self._is_relayed else "Direct path"
        self._terminal.note(
            f"{path}: {event.kind.value}, {address_text(event.address)}, round trip {round_trip_text(event.round_trip)}"
        )

    def _show_relay(self, event: events.RelayReady) -> None:
        if event.address is None and event.detail != self._relay_problem:  # it may be tried again and again
            self._terminal.warning(f"the relay {event.relay} is of no use: {event.detail}.")
        self._relay_problem = event.detail
        if event.address is not None:
            self._terminal.debug(f"relay {event.relay}: {address_text(event.address)}")

    def _show_offer(self, event: events.Offered) -> None:
        self._name = event.name
        self._progress_opened = event.is_text  # which is there before a bar could be read
        if self._role is Role.SENDER:
            self._terminal.note(f"Offering {offer_text(event)}; the other side is asked ...")
        else:
            self._terminal.note(f"Offered: {offer_text(event)}")

    def _show_skipped(self, count: int, first: tuple[tuple[str, str], ...]) -> None:
        for path, why in first[:SKIPPED_LINES]:
            self._terminal.warning(f"{escape(path)} is not sent: it {escape(why)}.")
        others = first[SKIPPED_LINES:]
        if count > SKIPPED_LINES:
            which = "them" if count == len(first) else f"{len(others)} of them"
            self._terminal.warning(f"{count - SKIPPED_LINES} more are not sent (-v shows {which}).")
        for path, why in others:
            self._terminal.debug(f"not sent: {escape(path)} {escape(why)}")

    def _show_accepted(self, already: int) -> None:
        self._already = already
        self._accepted_at = time.monotonic()
        if self._role is Role.SENDER:
            self._terminal.note("Accepted.")
        if already:
            self._terminal.note(f"There already: {size_text(already)}, which is sent again only where it differs.")

    def _show_progress(self, done: int, total: int | None) -> None:
        if not self._progress_opened:
            self._progress_opened = True
            name = f"{self._name} (relayed)" if self._is_relayed else self._name
            self._progress = open_progress(self._terminal, name, min(self._already, done), total, self._accepted_at)
        if self._progress is not None:
            self._progress.advance(done)

    def _show_verified(self, event: events.Verified) -> None:
        self.close()
        what = "Sent" if self._role is Role.SENDER else "Received"
        where = f" as {escape(event.path)}" if event.path else ""
        more = f" and {event.others} other{'s' if event.others > 1 else ''}" if event.others else ""
        if event.files > 1 + event.others:
            more += f" ({event.files} files)"
        moved = max(0, event.size - event.holes - self._already)
        rate = f", {rate_text(moved / event.seconds)}" if event.seconds > 0 and moved and not event.left_out else ""
        proof = "verified"
        if event.left_out:
            proof += f"; {event.left_out} {'were' if event.left_out > 1 else 'was'} there already"
        if event.skipped:
            proof += f"; {event.skipped} could not be sent"
        self._terminal.debug(f"BLAKE3 {event.digest}")
        self._terminal.result(
            f"{what} {escape(event.name)}{more}{where}: "
            f"{sizes_text(event.size, event.holes)} in {duration_text(event.seconds)}{rate}, {proof}"
        )


def _host(url: str) -> str | None:
    """The host of a URL; None for what is no URL, such as the name of the local network's mailbox."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None

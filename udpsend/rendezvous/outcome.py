"""What comes of a rendezvous, as events, and the texts of its failures."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from udpsend.errors import PeerError, PeerNeverCame, UdpsendError, WrongCode
from udpsend.events import WrongGuess
from udpsend.rendezvous.mailbox import LOCAL_NETWORK
from udpsend.wire.json import JSON


@dataclass(frozen=True, slots=True)
class Agreed:
    """Both sides know the code. `hello` is what the other side sealed: authentic, and still the word of a peer."""

    secret: bytes = field(repr=False)
    phrase: str
    hello: dict[str, JSON]
    size: float
    """Bytes of the message that it came in; infinite where people carried it."""


class SealedMessage(Struct, frozen=True):
    """A later message of the other side. Each comes once; the order may be another."""

    payload: dict[str, JSON]
    size: int
    """Bytes of the message that it came in."""


class Failed(Struct, frozen=True):
    """There will be no agreement. What `messages_to_send` still gives tells the other side."""

    error: UdpsendError


RendezvousEvent = Agreed | SealedMessage | WrongGuess | Failed


def nobody_came(timeout: float, brokers: int, reached: set[str]) -> PeerNeverCame:
    """`brokers` is how many this side was to reach, and `reached` has the names of the mailboxes that it did."""
    if not reached:
        return PeerNeverCame(
            f"Nobody could come: within {timeout:.0f} s this side reached no broker, and no local network. "
            "See to its network ('udpsend doctor' says more), and try again."
        )
    if brokers and reached == {LOCAL_NETWORK}:
        return PeerNeverCame(
            f"This side reached no broker within {timeout:.0f} s, and nobody with this code came on the local network. "
            "See to this side's network ('udpsend doctor' says more), and try again."
        )
    return PeerNeverCame(
        f"Nobody with this code came within {timeout:.0f} s. "
        "Start the other side with the same code and the same brokers, and try again."
    )


def no_text(timeout: float) -> PeerNeverCame:
    """Where texts are carried by hand."""
    return PeerNeverCame(
        f"No text of the other side with this code was given within {timeout:.0f} s. Begin again on both sides."
    )


def nothing_came(timeout: float) -> PeerNeverCame:
    """To a receiver whose text was carried by hand."""
    return PeerNeverCame(
        f"Nothing came from the sender within {timeout:.0f} s: it has no text 2, or another code,\n"
        "or there is no direct path. Begin again on both sides, and compare the codes."
    )


def too_many_guesses(guesses: int) -> WrongCode:
    return WrongCode(
        f"{guesses} attempts came with another code: it was mistyped, or somebody is guessing. "
        "Send again, with a new code."
    )


def not_the_code_of_the_sender() -> WrongCode:
    return WrongCode("The code is not the sender's. Compare it with what the sender shows, and try again.")


def too_many_senders(senders: int) -> WrongCode:
    return WrongCode(
        f"{senders} senders came and none had this code: it was mistyped, or somebody is guessing. "
        "Compare it with what the sender shows, or take a new one."
    )


def another_version(what: str) -> PeerError:
    return PeerError(
        f"The other side speaks another version of the protocol ({what}). Install the same udpsend on both sides."
    )


def broken_protocol(reason: str) -> PeerError:
    return PeerError(f"The other side broke the protocol ({reason}). Install the same udpsend on both sides.")

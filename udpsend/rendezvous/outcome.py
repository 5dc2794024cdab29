"""What comes of a rendezvous, as events, and the texts of its failures."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from udpsend.errors import PeerError, UdpsendError, WrongCode
from udpsend.events import WrongGuess
from udpsend.rendezvous.messages import JSON


@dataclass(frozen=True, slots=True)
class Agreed:
    """Both sides know the code. `hello` is what the other side sealed: authentic, and still the word of a peer."""

    secret: bytes = field(repr=False)
    phrase: str
    hello: dict[str, JSON]


class SealedMessage(Struct, frozen=True):
    """A later message of the other side. Each comes once; the order may be another."""

    payload: dict[str, JSON]


class Failed(Struct, frozen=True):
    """There will be no agreement. What `messages_to_send` still gives tells the other side."""

    error: UdpsendError


RendezvousEvent = Agreed | SealedMessage | WrongGuess | Failed


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

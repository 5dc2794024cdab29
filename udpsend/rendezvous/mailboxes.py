"""All places at which the two sides may meet, tried at once: the brokers, and the local network."""

from __future__ import annotations

from collections.abc import Iterator

from udpsend.config import Config
from udpsend.rendezvous.mailbox import Mailbox, OnMessage, OnState
from udpsend.rendezvous.mqtt import open_mqtt
from udpsend.rendezvous.multicast import open_multicast


def open_mailboxes(config: Config, topic: str, on_message: OnMessage, on_state: OnState) -> Iterator[Mailbox]:
    """Each is the caller's to close, also where a later one fails. Raises UsageError as `open_mqtt`."""
    yield from open_mqtt(config.brokers, topic, on_message, on_state)
    if config.lan:
        interfaces = None if config.bind is None else (config.bind,)
        yield open_multicast(topic, on_message, on_state, interfaces)

"""All places at which the two sides may meet, tried at once: the brokers, and the local network."""

from __future__ import annotations

from collections.abc import Callable

from udpsend.config import Config
from udpsend.rendezvous.mailbox import Mailbox, OnMessage, OnState
from udpsend.rendezvous.mqtt import open_mqtt
from udpsend.rendezvous.multicast import open_multicast


class Mailboxes:
    """What is left in one of them is left in all."""

    def __init__(self) -> None:
        self._all: list[Mailbox] = []

    def open(self, config: Config, topic: str, on_message: OnMessage, on_state: OnState) -> None:
        """Raises UsageError as `open_mqtt`. Where one cannot be opened, those before it are still to be closed."""
        self._all += open_mqtt(config.brokers, topic, on_message, on_state)
        if config.lan:
            interfaces = None if config.bind is None else (config.bind,)
            self._all.append(open_multicast(topic, on_message, on_state, interfaces))

    def publish(self, message: bytes) -> None:
        for mailbox in self._all:
            mailbox.publish(message)

    def renew(self) -> None:
        for mailbox in self._all:
            mailbox.renew()

    def closing(self) -> list[Callable[[], None]]:
        """What closes each of them, for threads of their own: it may take CLOSE_TIMEOUT."""
        return [mailbox.close for mailbox in self._all]

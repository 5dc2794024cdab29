"""MQTT brokers as mailboxes: everybody with the topic subscribes to it and publishes to it. Nothing is retained.

`open_mqtt` makes one mailbox (`broker_mailbox.py`) of the URLs to one host, with one thread, in which everything of
paho-mqtt happens. This is one connection of it:

1. Connect, with TLS where the URL says so, and say CONNECT.
2. Subscribe (QoS 0: what is lost is sent again by the machine). The mailbox is up when the broker has granted that.
3. Pass messages both ways until the connection breaks, or until the mailbox is closed and what was published is
   confirmed by the broker.

A broker is a stranger: what it sends passes a filter of sizes and rates (`mqtt_packets.py`), and an exception out of
paho on its bytes is a broken connection. paho works on a connection of ours (`broker_connection.py`), because it does
not close its socket where a handshake fails, because its timeouts are per read, and because only who holds the socket
can end an attempt early.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from udpsend.errors import UsageError
from udpsend.rendezvous.broker_connection import FilteredStream, HandshakeSocket, connect, resolve, start_tls
from udpsend.rendezvous.broker_mailbox import BrokerMailbox
from udpsend.rendezvous.broker_url import BrokerUrl, group_by_host, parse_broker_url
from udpsend.rendezvous.mailbox import Mailbox, OnMessage, OnState
from udpsend.rendezvous.messages import MAX_MESSAGE_SIZE
from udpsend.rendezvous.mqtt_packets import MAX_PACKET_SIZE, PacketFilter

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, SocketLike
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions

# Seconds for TCP, for TLS and for WebSocket; a lost SYN costs 1, a second one 2 more. Each takes a round trip, which is
# 2 s behind a line that is full.
CONNECT_TIMEOUT = 4.0
SESSION_TIMEOUT = 4.0  # seconds for the broker to accept us, and as many to grant the subscription
KEEPALIVE = 20  # seconds; a dead connection is noticed after twice that
MAX_UNCONFIRMED = 10  # sent at once: below the receive maximum of any broker seen (mosquitto: 20)
MAX_QUEUED = 64  # with those that paho holds back; the machine has about ten in flight
TICK = 1.0  # seconds between looks at the clock while nothing happens
CLOSING_TICK = 0.05  # seconds
ABOUT_THE_USER = ("not authorized", "bad user name or password")  # brokers say either
UNSPECIFIED = "unspecified error"
NOT_MQTT = "it hung up, or does not speak MQTT there (a network that asks to log in first?)"


def open_mqtt(urls: Sequence[str], topic: str, on_message: OnMessage, on_state: OnState) -> list[Mailbox]:
    """One mailbox for each host in `urls`, connecting from now on. Raises UsageError for what is not a broker's URL or
    whose CA file cannot be read; never for a broker that is not there."""
    groups = group_by_host([parse_broker_url(url) for url in urls])
    contexts = {url.ca: _tls_context(url) for group in groups for url in group if url.ca is not None}
    return [BrokerMailbox(group, contexts, topic, on_message, on_state, _Link) for group in groups]


def _tls_context(url: BrokerUrl) -> ssl.SSLContext:
    """Raises UsageError if the CA file of `url` is not usable."""
    try:
        return ssl.create_default_context(cafile=url.ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = "not there" if isinstance(error, FileNotFoundError) else "no readable PEM file of certificates"
        raise UsageError(f"The file {str(url.ca)!r}, given as ?ca= for {url.name}, is {reason}.") from error


class _Link:
    """One connection to a broker, from its name to its end: a `Link`."""

    def __init__(self, url: BrokerUrl, is_mqtt5: bool, mailbox: BrokerMailbox) -> None:
        self.is_up = False
        self.was_refused = False
        self.problem = ""
        self._url = url
        self._is_mqtt5 = is_mqtt5
        self._mailbox = mailbox
        self._subscription: int | None = None
        self._word_by = 0.0  # when it has to have said the next of its two
        self._unconfirmed: set[int] = set()
        self._socket: socket.socket | None = None
        self._stream: FilteredStream | None = None

    def run(self, context: ssl.SSLContext | None) -> None:
        addresses = resolve(self._url)
        self._socket = connect(addresses, time.monotonic() + CONNECT_TIMEOUT, self._mailbox.hold)
        if self._url.is_secure:
            deadline = time.monotonic() + CONNECT_TIMEOUT
            self._socket = start_tls(self._socket, self._url, context, deadline, self._mailbox.hold)
        client = self._make_client(self._socket)
        properties = _connect_properties() if self._is_mqtt5 else None
        client.connect(self._url.host, self._url.port, KEEPALIVE, properties=properties)
        self.was_refused = True
        with selectors.DefaultSelector() as selector:
            self._exchange(client, self._socket, selector)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _make_client(self, connected: socket.socket) -> Client:
        # paho loads dnspython, which aioice has brought, for SRV records that nobody asks for: 37 ms of 106.
        sys.modules.setdefault("dns.resolver", None)  # type: ignore[arg-type] # what is None there cannot be imported
        from paho.mqtt import client as paho  # slow
        from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

        link = self

        class ClientOnSocket(paho.Client):
            """Works on a connection that is there already: these are the two steps in which paho makes its own. And
            what it cannot read of a message is no reason to hang up: anybody may have written it."""

            def _create_socket_connection(self) -> socket.socket:
                if link._url.is_websocket:
                    return cast("socket.socket", HandshakeSocket(connected, time.monotonic() + CONNECT_TIMEOUT))
                return connected

            def _create_socket(self) -> SocketLike:
                link._stream = FilteredStream(super()._create_socket(), PacketFilter(link._mailbox.limit))
                return link._stream

            def _handle_publish(self) -> MQTTErrorCode:
                try:
                    return super()._handle_publish()
                except Exception:  # of properties that a broker passes on as they are: U+FEFF in one, say
                    return MQTTErrorCode.MQTT_ERR_SUCCESS

        client = ClientOnSocket(
            CallbackAPIVersion.VERSION2,
            client_id="udpsend" + secrets.token_hex(8),  # 23 letters and digits: what any broker must accept
            protocol=paho.MQTTv5 if self._is_mqtt5 else paho.MQTTv311,
            transport="websockets" if self._url.is_websocket else "tcp",
            reconnect_on_failure=False,
        )
        client.ws_set_options(self._url.path, self._websocket_headers)
        client.username_pw_set(self._url.user, self._url.password)
        client.max_queued_messages_set(MAX_QUEUED)
        client.max_inflight_messages_set(MAX_UNCONFIRMED)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message_received
        client.on_publish = self._published
        client.on_disconnect = self._disconnected
        return client

    def _websocket_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """paho believes itself on plain TCP and would name an http:// origin; only browsers have to name one."""
        return {name: value for name, value in headers.items() if name != "Origin"} | {"Host": self._url.netloc}

    def _exchange(self, client: Client, connected: socket.socket, selector: selectors.BaseSelector) -> None:
        """Passes packets until the connection ends (paho then has no socket), or the mailbox is closed and flushed."""
        self._word_by = time.monotonic() + SESSION_TIMEOUT
        selector.register(connected, selectors.EVENT_READ)
        selector.register(self._mailbox.wake_reader, selectors.EVENT_READ)
        while client.socket() is not None:
            now = time.monotonic()
            if not self.is_up and now > self._word_by:
                raise TimeoutError
            if self.is_up:
                self._publish_outgoing(client)
            if self._mailbox.is_closing and (not self._unconfirmed or now >= self._mailbox.flush_until):
                client.disconnect()
                return
            wait = CLOSING_TICK if self._mailbox.is_closing else TICK
            selector.modify(connected, selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0))
            has_pending = isinstance(connected, ssl.SSLSocket) and connected.pending() > 0
            ready = {key.fileobj: events for key, events in selector.select(0 if has_pending else wait)}
            if self._mailbox.wake_reader in ready:
                self._mailbox.wake_reader.recv(4096)
            if ready.get(connected, 0) & selectors.EVENT_READ or has_pending:
                client.loop_read()
                while client.socket() is not None and self._stream is not None and self._stream.has_buffered():
                    client.loop_read()
            if ready.get(connected, 0) & selectors.EVENT_WRITE and client.socket() is not None:
                client.loop_write()
            client.loop_misc()

    def _publish_outgoing(self, client: Client) -> None:
        while self._mailbox.outgoing:
            sent = client.publish(self._mailbox.topic, self._mailbox.outgoing.popleft(), qos=1)
            if sent.rc == 0:
                self._unconfirmed.add(sent.mid)

    # Called by paho, on the same thread.

    def _connected(self, client: Client, _: Any, flags: ConnectFlags, reason: ReasonCode, __: Any) -> None:
        if self._subscription is None:  # once, however often it says so
            self._word_by = time.monotonic() + SESSION_TIMEOUT
        if reason.is_failure:
            self.problem = self._why_refused(str(reason).lower())
        elif self._is_mqtt5:
            _, self._subscription = client.subscribe(self._mailbox.topic, options=_subscribe_options())
        else:
            _, self._subscription = client.subscribe(self._mailbox.topic, qos=0)

    def _subscribed(self, client: Client, _: Any, mid: int, reasons: list[ReasonCode], __: Any) -> None:
        if mid != self._subscription or not reasons or any(reason.is_failure for reason in reasons):
            self.problem = "it does not let us subscribe"
            client.disconnect()
        else:
            self.is_up = True
            self._mailbox.came_up(self._url)

    def _message_received(self, client: Client, _: Any, message: MQTTMessage) -> None:
        if not message.retain and message.topic == self._mailbox.topic and len(message.payload) <= MAX_MESSAGE_SIZE:
            self._mailbox.deliver(bytes(message.payload))

    def _published(self, client: Client, _: Any, mid: int, reason: ReasonCode, __: Any) -> None:
        self._unconfirmed.discard(mid)

    def _disconnected(self, client: Client, _: Any, flags: DisconnectFlags, reason: ReasonCode, __: Any) -> None:
        said = str(reason).lower()
        if said == UNSPECIFIED:  # paho's word for everything that is none of MQTT's
            said = "the broker or the network hung up" if self.is_up else NOT_MQTT
        refusal = self._stream.refusal if self._stream is not None else ""
        self.problem = self.problem or refusal or said

    def _why_refused(self, said: str) -> str:
        if said not in ABOUT_THE_USER:
            return said
        if self._url.user is None:
            return f"it wants a user and a password ({said}): {self._url.scheme}://user:password@..."
        return f"it does not accept the user and password ({said})"


def _connect_properties() -> Properties:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_SIZE
    return properties


def _subscribe_options() -> SubscribeOptions:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=0, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)

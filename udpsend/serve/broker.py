"""The embedded MQTT 3.1.1 broker: amqtt on listeners and streams of ours, which bound what a client can cost.

amqtt 0.12 as read: no limit on packet sizes, rates or subscriptions; clients that stay silent are kept for ever; a
packet may claim less than it holds; retained messages are kept. So a connection goes through `_PacketReader`, which
hands amqtt one whole packet at a time, of at most MAX_PACKET_SIZE bytes, no faster than the rate allows, and ends where
nothing comes; and through `_Writer`, which drops a client that does not read. Topics are those of udpsend, each by its
full name: nobody can watch all of them. What goes on is not logged.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from udpsend.errors import BadPacket
from udpsend.rendezvous.mailbox import RateLimit
from udpsend.rendezvous.mqtt_packets import packet_size_untrusted

TOPIC_PREFIX = "udpsend/"
MAX_PACKET_SIZE = 16_384
MAX_CONNECTIONS = 512
MAX_SUBSCRIPTIONS = 8  # of one client; udpsend has one
PACKETS_PER_SECOND, PACKET_BURST = 100.0, 200.0
BYTES_PER_SECOND, BYTE_BURST = 65_536.0, 262_144.0
MAX_UNREAD = 524_288  # bytes on the way to a client that does not take them
CONNECT_TIMEOUT = 10.0  # seconds
IDLE_TIMEOUT = 180.0  # udpsend pings every 20 s, most clients every 60
LINGER = 2.0  # seconds for the last bytes to a client
DELIVERY_TICK = 0.002  # seconds between two looks
LOOP_STEPS = 10  # after which asyncio has done what it had begun: it takes 3 to accept a connection, 2 to close one
DISCONNECT = 14
SUBSCRIPTION_REFUSED = 0x80

MQTT5_CONNECT = b"\x00\x04MQTT\x05"
UNACCEPTABLE_PROTOCOL = b"\x20\x02\x00\x01"
"""CONNACK of MQTT 3.1.1 (3.2.2.3): the client's version is not supported."""


class Anyone(BaseAuthPlugin):  # type: ignore[misc]
    """Lets every client in. A word, not a password, is what two peers share."""

    async def authenticate(self, *, session: Any) -> bool:
        session.is_anonymous = True  # its session ends with its connection
        return True


class FullTopicsOnly(BaseTopicPlugin):  # type: ignore[misc]
    """Lets clients use topics of udpsend, and none by a wildcard."""

    async def topic_filtering(self, *, session: Any = None, topic: str | None = None, action: Any = None) -> bool:
        return topic is not None and topic.startswith(TOPIC_PREFIX) and not set("+#") & set(topic)


class _BoundedBroker(Broker):  # type: ignore[misc]
    """amqtt's broker without retained messages and with a bound on subscriptions, which are all of QoS 0."""

    async def retain_message(self, *args: Any, **options: Any) -> None:
        return

    async def add_subscription(self, subscription: tuple[str, int], session: Any) -> int:
        held = sum(any(s is session for s, _ in subscribers) for subscribers in self.subscriptions.values())
        if held >= MAX_SUBSCRIPTIONS:
            return SUBSCRIPTION_REFUSED
        granted: int = await super().add_subscription((subscription[0], 0), session)
        return granted


class EmbeddedBroker:
    """Serves on `listeners`, which it closes at the end. All methods belong to the loop that `start` ran on."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        logging.getLogger("amqtt").setLevel(logging.CRITICAL + 1)
        logging.getLogger("transitions").setLevel(logging.WARNING)
        self.bytes_received = 0
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        names = [f"{cls.__module__}.{cls.__qualname__}" for cls in (Anyone, FullTopicsOnly)]
        config = BrokerConfig(
            listeners={"default": ListenerConfig(type=ListenerType.EXTERNAL)}, plugins={name: {} for name in names}
        )
        self._broker = _BoundedBroker(config, asyncio.get_running_loop())
        await self._broker.start()
        for listener in self._listeners:
            self._servers.append(await asyncio.start_server(self._connected, sock=listener, limit=MAX_PACKET_SIZE))

    async def stop(self) -> None:
        # In this order: asyncio 3.11 leaves a socket open that it has accepted and not yet passed on when its server is
        # closed.
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        await _let_loop_run()
        for server in self._servers:
            server.close()
        await self._broker.shutdown()
        for writer in self._connections.values():
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(self._connections, timeout=LINGER)
        for task in self._connections:
            task.cancel()
        await _let_loop_run()  # what was aborted is closed

    async def let_deliver(self, leaving: _PacketReader) -> None:
        """Waits until amqtt has passed on what a client has published: when the client leaves, it forgets the rest."""
        deadline = time.monotonic() + LINGER
        while time.monotonic() < deadline:
            await asyncio.sleep(DELIVERY_TICK)
            queues = [
                s.delivered_message_queue for s, handler in self._broker.sessions.values() if handler.reader is leaving
            ]
            if all(queue.empty() for queue in queues):
                return

    async def _connected(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs this in one
        self._connections[task] = writer
        reader = _PacketReader(stream, self)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                return
            if await reader.opens_with(MQTT5_CONNECT):
                writer.write(UNACCEPTABLE_PROTOCOL)
            else:
                await self._broker.external_connected(reader, _Writer(writer), "default")
            writer.close()
            async with asyncio.timeout(LINGER):
                await writer.wait_closed()
        except asyncio.CancelledError:
            return  # `stop` has ended it; asyncio would log it
        except Exception:  # whatever a client's bytes did to amqtt ends that client only
            logging.getLogger(__name__).debug("client dropped", exc_info=True)
        finally:
            writer.transport.abort()
            del self._connections[task]


async def _let_loop_run() -> None:
    for _ in range(LOOP_STEPS):
        await asyncio.sleep(0)


class _PacketReader(ReaderAdapter):  # type: ignore[misc]
    """amqtt's reader: one packet at a time. At the end of the stream and on a packet that is too long, too slow or
    less than it claims, everything further reads as nothing, which amqtt takes for the end of the connection."""

    def __init__(self, stream: asyncio.StreamReader, broker: EmbeddedBroker) -> None:
        self._stream = stream
        self._broker = broker
        self._header = bytearray()
        self._packet = b""
        self._has_ended = False
        self._packets = RateLimit(PACKETS_PER_SECOND, PACKET_BURST)
        self._bytes = RateLimit(BYTES_PER_SECOND, BYTE_BURST)
        self._deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT

    async def opens_with(self, connect: bytes) -> bool:
        """Whether the first packet is a CONNECT that begins so, after its fixed header of 2 to 5 bytes."""
        await self._next_packet()
        return self._packet[:1] == b"\x10" and connect in self._packet[2 : 5 + len(connect)]

    async def read(self, size: int = -1) -> bytes:
        if not self._packet:
            await self._next_packet()
        if self._has_ended or size > len(self._packet):
            self._has_ended = True
            return b""
        taken, self._packet = self._packet[:size], self._packet[size:]
        return taken

    def feed_eof(self) -> None:
        self._stream.feed_eof()

    async def _next_packet(self) -> None:
        """Fills `_packet`, or ends. amqtt stops waiting after the client's keep-alive and asks again, so what has been
        read is kept where this is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._deadline):
                while (size := packet_size_untrusted(self._header)) is None:
                    self._header += await self._stream.readexactly(1)
                if size > MAX_PACKET_SIZE:
                    raise BadPacket("size")
                self._packet = bytes(self._header) + await self._stream.readexactly(size - len(self._header))
        except (OSError, EOFError, BadPacket):  # TimeoutError is an OSError, IncompleteReadError an EOFError
            await self._broker.let_deliver(self)
            self._has_ended = True
            return
        self._header.clear()
        self._broker.bytes_received += size
        self._deadline = loop.time() + IDLE_TIMEOUT
        if self._packet[0] >> 4 == DISCONNECT:
            await self._broker.let_deliver(self)
        owed = max(self._packets.owed(loop.time(), 1), self._bytes.owed(loop.time(), size))
        if owed:
            await asyncio.sleep(owed)


class _Writer(StreamWriterAdapter):  # type: ignore[misc]
    """amqtt's writer. It never waits: amqtt has one task per message for each client, and they would pile up. Nor does
    it tell of a client that is gone, at which amqtt would forget what it has published: the reader finds out."""

    def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        super().write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self._writer.transport.abort()

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True
        self._writer.close()

"""Outbound: the plaintext of one record -> a sealed train of datagrams.

1. The caller has the frames of a record in one piece.
2. `seal` encrypts it in one call into the ciphertext buffer, whose end-to-end slices are the payloads.
3. The headers are written in a handful of strided operations.
4. The views that interleave both are built once per datagram size and reused in every train.
"""

from __future__ import annotations

from udpsend.sealing.keys import DirectionKeys
from udpsend.sealing.seal import TAG_BYTES, Sealer
from udpsend.wire.datagram import HEADER_SIZE, MAX_SEGMENTS, MAX_TRAIN_SIZE, Address, Transmit
from udpsend.wire.packets import KIND_RECORD, pack_headers


class TrainWriter:
    """The buffers of one direction. A Transmit is valid until the next call of `seal`."""

    def __init__(self, keys: DirectionKeys, datagram_size: int) -> None:
        self._sealer = Sealer(keys)
        self._tag = keys.tag
        self._ciphertext = memoryview(bytearray(MAX_TRAIN_SIZE))
        self._headers = memoryview(bytearray(MAX_SEGMENTS * HEADER_SIZE))
        self._header_views = [self._headers[i : i + HEADER_SIZE] for i in range(0, len(self._headers), HEADER_SIZE)]
        self.datagram_size = 0
        self.set_datagram_size(datagram_size)

    def set_datagram_size(self, size: int) -> None:
        """Bytes of each datagram of the trains to come, header included."""
        if size == self.datagram_size:
            return
        self.datagram_size = size
        self.max_datagrams = min(MAX_SEGMENTS, MAX_TRAIN_SIZE // size)
        self._payload_size = payload = size - HEADER_SIZE
        self._views = [
            view
            for i in range(self.max_datagrams)
            for view in (self._header_views[i], self._ciphertext[i * payload : (i + 1) * payload])
        ]

    def capacity(self, datagrams: int) -> int:
        """Bytes of plaintext that a record of so many datagrams holds."""
        return min(datagrams, self.max_datagrams) * self._payload_size - TAG_BYTES

    def seal(self, number: int, plaintext: memoryview, address: Address) -> tuple[Transmit, int]:
        """The train of record `number`, and of how many datagrams it is."""
        size = len(plaintext) + TAG_BYTES
        full, rest = divmod(size, self._payload_size)
        count = full + (rest > 0)
        headers = self._seal_record(number, plaintext, count)
        if rest:
            last = self._ciphertext[full * self._payload_size : size]
            views = [*self._views[: 2 * full], self._header_views[full], last]
        else:
            views = self._views[: 2 * full]
        return Transmit(views, self.datagram_size, size + headers, address), count

    def seal_single(self, number: int, plaintext: memoryview | bytes, address: Address) -> Transmit:
        """The same as one datagram, whatever its size: how path MTU probes are sent."""
        size = len(plaintext) + TAG_BYTES
        self._seal_record(number, plaintext, 1)
        views = [self._header_views[0], self._ciphertext[:size]]
        return Transmit(views, HEADER_SIZE + size, HEADER_SIZE + size, address)

    def _seal_record(self, number: int, plaintext: memoryview | bytes, count: int) -> int:
        headers = pack_headers(KIND_RECORD, self._tag, number, 0, count, count)
        self._headers[: len(headers)] = headers
        ciphertext = self._ciphertext[: len(plaintext) + TAG_BYTES]
        self._sealer.seal_into(number, bytes(headers[:HEADER_SIZE]), plaintext, ciphertext)
        return len(headers)

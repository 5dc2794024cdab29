"""Outbound: the plaintext of one record -> a sealed train of datagrams.

1. The caller has the frames of a record in one piece.
2. `seal` encrypts it in one call into the ciphertext buffer, whose end-to-end slices are the payloads.
3. The headers are rewritten in place, in one or two strided operations.
4. The views that interleave both are built once per datagram size and reused in every train.
"""

from __future__ import annotations

from udpsend.sealing.keys import DirectionKeys
from udpsend.sealing.seal import TAG_BYTES, Sealer
from udpsend.wire.datagram import (
    HEADER_SIZE,
    MAX_CALLS,
    MAX_DATAGRAMS,
    MAX_TRAIN_SIZE,
    Address,
    Transmit,
    datagrams_per_call,
)
from udpsend.wire.packets import RecordHeaders

_Shape = tuple[int, int, memoryview, list[memoryview]]


class TrainWriter:
    """The buffers of one direction. A Transmit is valid until the next call of `seal`."""

    def __init__(self, keys: DirectionKeys, datagram_size: int) -> None:
        self._sealer = Sealer(keys)
        self._ciphertext = memoryview(bytearray(MAX_TRAIN_SIZE))
        self._headers = RecordHeaders(keys.tag)
        headers = memoryview(self._headers.buffer)
        self._header_views = [headers[i : i + HEADER_SIZE] for i in range(0, len(headers), HEADER_SIZE)]
        self.datagram_size = 0
        self._shape: _Shape
        self.set_datagram_size(datagram_size)

    def set_datagram_size(self, size: int) -> None:
        """Bytes of each datagram of the trains to come, header included."""
        if size == self.datagram_size:
            return
        self.datagram_size = size
        self.per_call = datagrams_per_call(size)
        self.max_datagrams = min(MAX_CALLS, MAX_DATAGRAMS // self.per_call) * self.per_call
        self._payload_size = payload = size - HEADER_SIZE
        self._views = [
            view
            for i in range(self.max_datagrams)
            for view in (self._header_views[i], self._ciphertext[i * payload : (i + 1) * payload])
        ]
        self._shape = (0, 0, self._ciphertext[:0], [])

    def capacity(self, datagrams: int) -> int:
        """Bytes of plaintext that a record of so many datagrams holds."""
        return min(datagrams, self.max_datagrams) * self._payload_size - TAG_BYTES

    def seal(self, number: int, plaintext: memoryview, address: Address) -> tuple[Transmit, int]:
        """The train of record `number`, and of how many datagrams it is."""
        size = len(plaintext) + TAG_BYTES
        if size != self._shape[0]:
            self._shape = self._shape_of(size)
        _, count, ciphertext, views = self._shape
        self._sealer.seal_into(number, self._headers.set(number, count), plaintext, ciphertext)
        return Transmit(views, self.datagram_size, size + count * HEADER_SIZE, address), count

    def _shape_of(self, size: int) -> _Shape:
        """What a record of `size` bytes of ciphertext is made of: mostly that of the one before it."""
        full, rest = divmod(size, self._payload_size)
        views = self._views[: 2 * full]
        if rest:
            views += [self._header_views[full], self._ciphertext[full * self._payload_size : size]]
        return size, full + (rest > 0), self._ciphertext[:size], views

    def seal_single(self, number: int, plaintext: memoryview | bytes, address: Address) -> Transmit:
        """The same as one datagram, whatever its size: how path MTU probes are sent."""
        ciphertext = self._ciphertext[: len(plaintext) + TAG_BYTES]
        self._sealer.seal_into(number, self._headers.set(number, 1), plaintext, ciphertext)
        size = HEADER_SIZE + len(ciphertext)
        return Transmit([self._header_views[0], ciphertext], size, size, address)

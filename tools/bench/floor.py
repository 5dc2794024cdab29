"""What moving a file this way costs at the very least: the same trains, and nothing that makes them a protocol.

1. The sender reads a block of records, hashes it (BLAKE3), and seals each record (ChaCha20-Poly1305) into one buffer.
2. A `sendmsg` for each 64 KB sends it as a train of equal datagrams, with headers of 16 bytes that never change.
3. The receiver takes it with as many `recvmsg_into` where the kernel joins datagrams, opens the record into a block,
   hashes the block and writes it.
4. Every few trains the receiver says how many it has, so that the sender does not overrun its socket.

No acknowledgement of single records, no loss, no rate, no window, no timers, no threads. The network must neither lose
nor reorder. CPU seconds are those of the loop, without the interpreter's start. With `--parts` each step is timed on
its own, at the price of a clock reading each.

    python tools/bench/floor.py receive FILE --size N --address HOST:PORT --datagram 1472 --count 176 --report FILE
    python tools/bench/floor.py send FILE --size N --address HOST:PORT --datagram 1472 --count 176 --report FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
HEADER, TAG = 16, 16
BLOCK = 1 << 20
CALL = 65_507  # bytes that one sendmsg takes, of at most
SEGMENTS = 64  # datagrams
TOLD_EVERY = 1 << 18  # bytes
IN_FLIGHT = 1 << 20  # bytes
PATIENCE = 30.0  # seconds
# A last datagram that is shorter ends a train for the kernel too: it never joins two of them.
SHORTER = 8


class Shape:
    """Trains of up to `count` datagrams of `datagram` bytes each."""

    def __init__(self, datagram: int, count: int) -> None:
        self.datagram = datagram
        self.payload = datagram - HEADER
        self.record = count * self.payload - TAG - SHORTER
        """Bytes of plaintext in a full train."""
        self.records = max(1, BLOCK // self.record)
        self.block = self.records * self.record
        self.call = 2 * min(SEGMENTS, CALL // datagram)
        """Views that one sendmsg takes."""
        headers = memoryview(bytes(count * HEADER))
        self.header = bytes(HEADER)
        self.sealed = memoryview(bytearray(count * self.payload))
        pieces = [self.sealed[at : at + self.payload] for at in range(0, len(self.sealed), self.payload)]
        self.views = [view for piece in pieces for view in (headers[:HEADER], piece)]
        self.scatter = [view for piece in pieces for view in (memoryview(bytearray(HEADER)), piece)]

    def size(self, plaintext: int) -> int:
        """Bytes of the train for a record of so many bytes."""
        sealed = plaintext + TAG
        return sealed + -(-sealed // self.payload) * HEADER

    def gather(self, plaintext: int) -> list[memoryview]:
        """The views of that train."""
        full, rest = divmod(plaintext + TAG, self.payload)
        views = self.views[: 2 * full]
        return [*views, self.views[2 * full], self.views[2 * full + 1][:rest]] if rest else views


class Watch:
    """CPU time of this thread, by step; does nothing unless it is `on`."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.spent: Counter[str] = Counter()
        self._last = time.thread_time_ns()

    def lap(self, step: str) -> None:
        if self.on:
            now = time.thread_time_ns()
            self.spent[step] += now - self._last
            self._last = time.thread_time_ns()


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    sock.settimeout(PATIENCE)
    return sock


def _meet(sock: socket.socket) -> None:
    """Says hello until the receiver is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            sock.send(b"?")
            if select.select([sock], [], [], 0.02)[0]:
                sock.recv(8)
                return
    raise TimeoutError("the receiver did not come")


def send(path: Path, size: int, address: tuple[str, int], shape: Shape, watch: Watch) -> tuple[str, float]:
    """Sends it. Returns the hash, and the CPU seconds that it took."""
    aead, hashing = ChaCha20Poly1305(bytes(32)), blake3()
    ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", shape.datagram))]
    block = memoryview(bytearray(shape.block))
    full = shape.gather(shape.record)
    number = told = 0
    with _socket() as sock, open(path, "rb", buffering=0) as file:
        sock.connect(address)
        _meet(sock)
        window = max(2, IN_FLIGHT // (shape.record + TAG))
        begin = _cpu()
        for offset in range(0, size, shape.block):
            wanted = min(shape.block, size - offset)
            watch.lap("loop")
            if os.preadv(file.fileno(), [block[:wanted]], offset) != wanted:
                raise OSError("the file is shorter than it was")
            watch.lap("read")
            hashing.update(block[:wanted])
            watch.lap("BLAKE3")
            for at in range(0, wanted, shape.record):
                length = min(shape.record, wanted - at)
                views = full if length == shape.record else shape.gather(length)
                watch.lap("loop")
                nonce, sealed = number.to_bytes(12), shape.sealed[: length + TAG]
                aead.encrypt_into(nonce, block[at : at + length], shape.header, sealed)
                watch.lap("AEAD")
                for first in range(0, len(views), shape.call):
                    sock.sendmsg(views[first : first + shape.call], ancillary if shape.call > 2 else [])
                watch.lap("sendmsg")
                number += 1
                while number - told >= window:
                    told = int.from_bytes(sock.recv(8))
        while told < number:
            told = int.from_bytes(sock.recv(8))
        return hashing.hexdigest(), _cpu() - begin


def receive(path: Path, size: int, address: tuple[str, int], shape: Shape, watch: Watch) -> tuple[str, float]:
    """Receives it. Returns the hash, and the CPU seconds that it took."""
    aead, hashing = ChaCha20Poly1305(bytes(32)), blake3()
    block = memoryview(bytearray(shape.block))
    told_every = max(1, TOLD_EVERY // shape.record)
    number = 0
    with _socket() as sock, open(path, "wb", buffering=0) as file:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sock.bind(address)
        _, source = sock.recvfrom(1)
        sock.connect(source)
        sock.send(bytes(8))
        begin = _cpu()
        for offset in range(0, size, shape.block):
            wanted = min(shape.block, size - offset)
            for at in range(0, wanted, shape.record):
                length = min(shape.record, wanted - at)
                watch.lap("loop")
                _take(sock, shape, shape.size(length))
                watch.lap("recvmsg")
                nonce, sealed = number.to_bytes(12), shape.sealed[: length + TAG]
                aead.decrypt_into(nonce, sealed, shape.header, block[at : at + length])
                watch.lap("AEAD")
                number += 1
                if number % told_every == 0:
                    sock.send(number.to_bytes(8))
            watch.lap("loop")
            hashing.update(block[:wanted])
            watch.lap("BLAKE3")
            if os.pwrite(file.fileno(), block[:wanted], offset) != wanted:
                raise OSError("no space")
            watch.lap("write")
        sock.send(number.to_bytes(8))
        return hashing.hexdigest(), _cpu() - begin


def _take(sock: socket.socket, shape: Shape, wanted: int) -> None:
    """One train into `shape.sealed`, in as many pieces as the kernel makes of it."""
    got = 0
    while got < wanted:
        # All but the last datagram are full, so what came ends where a view ends.
        first = got // shape.datagram * 2
        came = sock.recvmsg_into(shape.scatter[first : first + shape.call])[0]
        got += came if came > 1 else 0  # else it is a hello that was repeated


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description="the floor: AEAD, sendmsg/recvmsg, read/write and BLAKE3 of trains")
    parser.add_argument("side", choices=("send", "receive"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--address", required=True, help="HOST:PORT of the receiver")
    parser.add_argument("--datagram", type=int, required=True, help="bytes of a datagram")
    parser.add_argument("--count", type=int, required=True, help="datagrams of a train")
    parser.add_argument("--parts", action="store_true", help="time each step")
    parser.add_argument("--report", type=Path, required=True)
    chosen = parser.parse_args()
    host, _, port = chosen.address.rpartition(":")
    shape, watch = Shape(chosen.datagram, chosen.count), Watch(chosen.parts)
    move = send if chosen.side == "send" else receive
    digest, cpu = move(chosen.file, chosen.size, (host, int(port)), shape, watch)
    trains = sum(-(-min(shape.block, chosen.size - at) // shape.record) for at in range(0, chosen.size, shape.block))
    parts = {step: spent / 1000 / trains for step, spent in watch.spent.items()}  # microseconds per train
    report = {"cpu": cpu, "trains": trains, "record": shape.record, "digest": digest, "parts": parts}
    chosen.report.write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

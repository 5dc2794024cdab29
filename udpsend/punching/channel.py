"""Probes <-> sealed datagrams of one punching.

A datagram is taken in this order: size, kind, tag, replay, seal, form. What a stranger sends ends at the tag, what he
repeats at the replay window; one failed open is the most that anybody can cost.
"""

from __future__ import annotations

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.sealing.keys import derive_keys
from udpsend.sealing.replay import ReplayWindow
from udpsend.sealing.seal import TAG_BYTES, Opener, Sealer
from udpsend.wire.datagram import HEADER_SIZE
from udpsend.wire.packets import KIND_PROBE, Header, parse_header_untrusted
from udpsend.wire.probe import BODY_SIZE, Probe, parse_probe_untrusted

PROBE_SIZE = HEADER_SIZE + BODY_SIZE + TAG_BYTES
MAX_PROBE_SIZE = 1200  # later versions may append


class ProbeChannel:
    """One for each secret and role: numbers are never used twice with one key."""

    def __init__(self, secret: bytes, role: Role) -> None:
        keys = derive_keys(secret, role, "probe")
        self._sealer = Sealer(keys.send)
        self._opener = Opener(keys.receive)
        self._send_tag = keys.send.tag
        self._receive_tag = keys.receive.tag
        self._number = 0
        self._replay = ReplayWindow()

    def seal(self, probe: Probe) -> bytes:
        number = self._number
        self._number += 1
        header = Header(KIND_PROBE, self._send_tag, number, 0, 1).pack()
        return header + self._sealer.seal(number, header, probe.pack())

    def open_untrusted(self, datagram: bytes) -> Probe:
        """The probe in it, taken for the first time. Raises BadPacket."""
        if not PROBE_SIZE <= len(datagram) <= MAX_PROBE_SIZE:
            raise BadPacket("probe size")
        header = parse_header_untrusted(datagram)
        if header.kind != KIND_PROBE or header.tag != self._receive_tag or header.count != 1:
            raise BadPacket("not of this session")
        if not self._replay.is_new(header.number):
            raise BadPacket("replayed")
        body = self._opener.open_untrusted(header.number, datagram[:HEADER_SIZE], datagram[HEADER_SIZE:])
        self._replay.take(header.number)
        return parse_probe_untrusted(body)

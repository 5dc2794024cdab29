"""Probes: golden bytes, every form there and back, and arbitrary bytes at the parser, the channel and the puncher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.config import Role
from udpsend.errors import BadPacket
from udpsend.events import PathKind
from udpsend.punching.channel import PROBE_SIZE, ProbeChannel
from udpsend.punching.deadline import PUNCH_TIMEOUT
from udpsend.punching.puncher import Puncher
from udpsend.sealing.replay import WINDOW, ReplayWindow
from udpsend.wire.candidate import Candidate, CandidateType
from udpsend.wire.datagram import Arrival
from udpsend.wire.packets import KIND_PROBE
from udpsend.wire.probe import BODY_SIZE, Probe, ProbeType, parse_probe_untrusted

SECRET = bytes(range(32))

# The first of GOLDEN, sealed by the sender under SECRET as number 0.
GOLDEN_DATAGRAM = (
    "e16891b2d27f78e60000000000000001e5aa473756cdf51a4ad7a180dfd1bbd3d663197f1b330b03"
    "422852740752af0bd52bc6007fc99fb507d2d3a7a852550557ecc40e3c2c274af7304caa812a38d9"
)

GOLDEN = [
    (
        Probe(ProbeType.REQUEST, transaction=bytes(range(8))),
        "01 00 00 03 0001020304050607" + "00" * 36,
    ),
    (
        Probe(ProbeType.RESPONSE, True, transaction=bytes(range(8)), observed=("203.0.113.1", 4000)),
        "02 01 00 03 0001020304050607 00000000000000000000ffffcb007101 0fa0" + "00" * 18,
    ),
    (
        Probe(ProbeType.RESPONSE, transaction=bytes(8), observed=("2001:db8::9", 65535)),
        "02 00 00 03 0000000000000000 20010db8000000000000000000000009 ffff" + "00" * 18,
    ),
    (Probe(ProbeType.NOMINATE, True, 1, PathKind.THIS_HOST), "03 01 01 00" + "00" * 44),
    (Probe(ProbeType.NOMINATED, True, 2, PathKind.LOCAL_NETWORK), "04 01 02 01" + "00" * 44),
    (Probe(ProbeType.CONFIRM, True, 255, PathKind.IPV6), "05 01 ff 02" + "00" * 44),
]


@pytest.mark.parametrize(("probe", "golden"), GOLDEN)
def test_golden_bytes(probe: Probe, golden: str) -> None:
    assert probe.pack() == bytes.fromhex(golden)
    assert parse_probe_untrusted(bytes.fromhex(golden)) == probe
    assert parse_probe_untrusted(bytes.fromhex(golden) + b"of a later version") == probe


def test_golden_datagram() -> None:
    datagram = ProbeChannel(SECRET, Role.SENDER).seal(GOLDEN[0][0])
    assert len(datagram) == PROBE_SIZE == 80
    assert datagram.hex() == GOLDEN_DATAGRAM
    assert ProbeChannel(SECRET, Role.RECEIVER).open_untrusted(datagram) == GOLDEN[0][0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bytes(BODY_SIZE - 1), "short probe"),
        (bytes(BODY_SIZE), "probe type"),
        (b"\6" + bytes(BODY_SIZE - 1), "probe type"),
        (b"\1\0\0\5" + bytes(BODY_SIZE - 4), "path kind"),
        (b"\1\0\1\0" + bytes(BODY_SIZE - 4), "generation"),
        (b"\3\0\0\0" + bytes(BODY_SIZE - 4), "generation"),
    ],
)
def test_what_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BadPacket, match=reason):
        parse_probe_untrusted(body)


@given(st.binary(max_size=100) | st.binary(min_size=BODY_SIZE, max_size=BODY_SIZE))
def test_any_bytes_as_a_body(body: bytes) -> None:
    try:
        probe = parse_probe_untrusted(body)
    except BadPacket:
        return
    assert parse_probe_untrusted(probe.pack()) == probe


@given(
    st.builds(
        bytes.__add__,
        st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)).map(bytes),
        st.binary(min_size=BODY_SIZE - 4, max_size=BODY_SIZE - 4),
    )
)
def test_bodies_that_are_nearly_right(body: bytes) -> None:
    try:
        probe = parse_probe_untrusted(body)
    except BadPacket:
        return
    assert parse_probe_untrusted(probe.pack()) == probe


@given(st.binary(max_size=200) | st.binary(max_size=1300).map(lambda rest: bytes([KIND_PROBE]) + rest))
def test_any_datagram_at_the_puncher(datagram: bytes) -> None:
    puncher = Puncher(SECRET, Role.RECEIVER, 0.0, bytes, False)
    puncher.datagram_received(Arrival.of([datagram], ("198.51.100.1", 9)), 0.0)
    assert sum(puncher.drops.values()) == 1
    assert not puncher.datagrams_to_send(0.0)
    assert puncher.next_timer() == PUNCH_TIMEOUT


@given(st.integers(0, PROBE_SIZE - 1), st.integers(1, 255))
def test_no_byte_may_be_changed(position: int, change: int) -> None:
    datagram = bytearray(ProbeChannel(SECRET, Role.SENDER).seal(GOLDEN[1][0]))
    datagram[position] ^= change
    with pytest.raises(BadPacket):
        ProbeChannel(SECRET, Role.RECEIVER).open_untrusted(bytes(datagram))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ProbeType),
            st.booleans(),
            st.integers(0, 3),
            st.binary(min_size=8, max_size=8),
            st.integers(1, 40),
        ),
        max_size=200,
    ),
    st.sampled_from(Role),
)
def test_a_peer_that_knows_the_key_and_speaks_nonsense(
    script: list[tuple[ProbeType, bool, int, bytes, int]], role: Role
) -> None:
    """Authentic probes in any order from any address: no error, a bounded number of pairs and answers, no path."""
    puncher = Puncher(SECRET, role, 0.0, bytes, False)
    puncher.add_remote_candidates([Candidate(CandidateType.HOST, ("10.0.0.1", 1))], 0.0)
    peer = ProbeChannel(SECRET, role.other)
    for number, (probe_type, validated, generation, transaction, port) in enumerate(script):
        probe = Probe(probe_type, validated, generation, PathKind.THIS_HOST, transaction)
        now = number * 0.01
        puncher.datagram_received(Arrival.of([peer.seal(probe)], ("10.0.0.1", port)), now)
        assert len(puncher.datagrams_to_send(now)) <= 3
        timer = puncher.next_timer()
        assert timer is not None
        if timer <= now:
            puncher.timer_expired(now)
    assert puncher.path is None


@given(st.lists(st.integers(0, 3 * WINDOW)))
def test_replay_window(numbers: list[int]) -> None:
    window = ReplayWindow()
    taken: set[int] = set()
    for number in numbers:
        new = number not in taken and (not taken or number > max(taken) - WINDOW)
        assert window.is_new(number) is new
        if new:
            window.take(number)
            taken.add(number)

"""The bottleneck in user space that kernel flows are measured through, and one short measurement."""

from __future__ import annotations

import os

import pytest

from tools.matrix.kernel import share
from tools.matrix.wan import Line
from tools.netlab import missing_requirements

MISSING = missing_requirements() or (None if os.path.exists("/dev/net/tun") else "needs /dev/net/tun")


def packet(size: int, protocol: int) -> bytes:
    header = bytearray(size)
    header[0], header[9] = 0x45, protocol
    return bytes(header)


def test_packets_leave_at_the_rate_and_arrive_after_the_delay() -> None:
    line = Line(rate=1e6, delay=0.05, queue=2500)
    for now in (1.0, 1.0, 1.0):
        line.put(packet(1000, 17), now)
    assert [due for due, _ in line.packets] == pytest.approx([1.051, 1.052])
    assert line.passed == {"udp": 2000}
    assert line.dropped == {"udp": 1000}, "there is room for two and a half"
    assert line.backlog(1.0015) == pytest.approx(500)
    line.put(packet(1000, 6), 1.0015)
    assert line.passed == {"udp": 2000, "tcp": 1000}
    assert line.packets[-1][0] == pytest.approx(1.053)


def test_a_line_without_a_rate_only_delays() -> None:
    line = Line(rate=None, delay=0.02, queue=0)
    line.put(packet(1000, 6), 5.0)
    assert [due for due, _ in line.packets] == [5.02]
    assert line.backlog(5.0) == 0


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_both_flows_are_measured() -> None:
    ours, both = share(20.0, 0.02, 1.0, "cubic", [], 0.5)
    assert 0 < ours < 1
    assert both > 0

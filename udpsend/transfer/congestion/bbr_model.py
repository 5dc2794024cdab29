"""What the parts of BBR share: state, model of the path, and the two control parameters that follow from them
(draft-ietf-ccwg-bbr-06, section 5.6)."""

from __future__ import annotations

from enum import Enum
from math import inf

from udpsend.transfer.congestion.base import initial_window
from udpsend.transfer.congestion.bbr_loss import LossModel
from udpsend.transfer.congestion.bbr_path import PathModel
from udpsend.transfer.record_length import train_time

# The first window leaves in 1/2.77 of a round trip, and so do those that follow: each is a look at a rate that is 2.77
# times that of the window. Where it meets no queue the path takes that rate, and the next window may be 2.77 times as
# large, in place of the draft's two; the largest that is found so is a third more than the path holds. Where a queue
# shows it doubles, up to twice what the path holds. 500 Mbit/s x 200 ms: 88 -> 92 % from the second second on.
STARTUP_PACING_GAIN = 2.77
# A longer path begins at the rate that RFC 9002 lets one of 20 ms begin with: it is paced, and its links are no slower.
# At 200 ms three round trips are saved. What it costs is a queue, or losses, for the first second on links of 1 and
# 2 Mbit/s; from 10 Mbit/s on nothing that shows in the simulator.
FULL_START_RTT = 0.02  # seconds
MAX_START_STRETCH = 10
PACING_MARGIN = 0.99
# Where the least window is more than the path holds, a lost datagram leaves another one in the queue, and that is as
# long as the round trip: 1 % drains it too slowly (10 Mbit/s x 1 ms; with 3 % the queue is of 1.3 round trips).
TINY_PATH_PACING_MARGIN = 0.96
MIN_PIPE_DATAGRAMS = 4
# With the draft's 0.15, or 0.2, seven tenths of the path are kept from the kernel's CUBIC for a minute where the buffer
# holds one BDP: it finds no room to grow in. Where round trips show a queue that is not from a probe there is somebody
# to take the room, and more is left: 66 to 72 % with 0.3, 61 to 64 with 0.4. (Half of it in any case leaves a tenth of
# a path empty whose buffer holds half a BDP.)
HEADROOM = 0.3
SHARED_HEADROOM = 0.4
# Where not even ProbeRTT has emptied the queue the buffer is deep: there is room in it to grow in, and what is left to
# others they keep (4 BDP, CUBIC in the simulator: 33 % with 0.3, 38 with 0.2).
STANDING_HEADROOM = 0.2
STANDING_QUEUE = 1.5  # shortest round trip, times the shortest ever
PROBE_RTT_GAIN = 0.5
MAX_QUANTUM = 65_536
QUANTA = 3  # one being sent, one on its way, one being acknowledged
QUIET = 1.125  # times the propagation delay, plus a train's time at the bottleneck: the queue is empty
# Bytes of an acknowledgement after many losses. On a tiny path it takes its time, too: without it no round trip of
# 10 Mbit/s x 1 ms was quiet any more where losses had bounded the rate, and that stayed for seconds: 83 % of goodput
# in place of 92. (On all paths it took room from this side: 34 % beside CUBIC at 10 Mbit/s x 20 ms, 4 BDP.)
LARGE_ACK = 600


class State(Enum):
    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "probe bandwidth: down"
    CRUISE = "probe bandwidth: cruise"
    REFILL = "probe bandwidth: refill"
    UP = "probe bandwidth: up"
    PROBE_RTT = "probe round trip"


PACING_GAIN = {
    State.STARTUP: STARTUP_PACING_GAIN,
    State.DRAIN: 0.5,
    State.DOWN: 0.9,
    State.CRUISE: 1.0,
    State.REFILL: 1.0,
    State.UP: 1.25,
    State.PROBE_RTT: 1.0,
}
# The draft has 2, and 2.25 in up. It is the window that decides where others keep a deep buffer full (4 BDP, CUBIC: a
# third of the path with 2); alone the pacing does, and nothing is added to the queue.
WINDOW_GAIN = 2.0
UP_WINDOW_GAIN = 2.25
# More where probes have met losses, so others keep the buffer full: there the window decides (4 BDP, CUBIC: a third of
# the path without it).
CONTENDED_GAIN = 0.35
# Less between probes where they have not: that keeps the balance with the kernel's BBR (version 1), whose best rate is
# forgotten sooner than ours. With 2 it was 56 to 73 % of the path at 4 BDP, with 1.85 it is 56 to 60.
STEADY_WINDOW_GAIN = 1.85
STEADY = frozenset({State.DOWN, State.CRUISE, State.REFILL})
PROBE_BW = STEADY | {State.UP}
PROBING = frozenset({State.STARTUP, State.REFILL, State.UP})


class Model:
    def __init__(self, datagram_size: int, seed: int) -> None:
        self.state = State.STARTUP
        self.path = PathModel()
        self.loss = LossModel()
        self.size = datagram_size
        self.window: float = initial_window(datagram_size)
        self.pacing_rate = 0.0
        self._start_until = 0.0  # until so much is delivered, the first window is on its way
        self._start_lost = 0
        self.inflight_long = inf
        """The draft's inflight_longterm: the most that was in flight without too much loss."""
        self.bandwidth = 0.0
        """The draft's bw: max_bw as the short-term bound limits it."""
        self.delivered = 0
        self.latest_rtt = inf
        self.has_room = False
        """In Startup: what arrived last shows that the path is faster than what was tried."""
        self._seed = seed or 1

    def bdp(self, gain: float = 1.0) -> float:
        if self.path.min_rtt == inf:
            return initial_window(self.size)
        return gain * self.bandwidth * self.path.min_rtt

    @property
    def min_window(self) -> int:
        return MIN_PIPE_DATAGRAMS * self.size

    @property
    def is_path_tiny(self) -> bool:
        """The path holds less than the least window. Unknown before the pipe has been full."""
        return self.path.full_reached and self.bdp() < self.min_window

    @property
    def probe_rtt_window(self) -> float:
        return max(self.bdp(PROBE_RTT_GAIN), self.min_window)

    @property
    def inflight(self) -> float:
        """What fills the path without a queue."""
        return self._quantized(self.path.max_bandwidth * self.path.min_rtt if self.path.min_rtt < inf else 0.0)

    @property
    def inflight_with_headroom(self) -> float:
        if self.inflight_long == inf or self.loss.imposed:  # who does not answer losses would not leave any
            return self.inflight_long
        return max(self.inflight_long - max(self.size, self._headroom * self.inflight_long), self.min_window)

    @property
    def _headroom(self) -> float:
        """What part of what fits is left to others."""
        if self.path.min_rtt >= STANDING_QUEUE * self.path.lowest_rtt:
            return STANDING_HEADROOM
        return HEADROOM if self.loss.quiet else SHARED_HEADROOM

    @property
    def quiet_rtt(self) -> float:
        """A round trip as short as this met an empty queue. A train takes its own time at the bottleneck, and the
        shortest round trip was that of a small record and of a small acknowledgement."""
        serialized = max(self._quantum, self.size) + (LARGE_ACK if self.is_path_tiny else 0)
        return self.path.min_rtt * QUIET + serialized / max(self.path.max_bandwidth, 1.0)

    @property
    def _quantum(self) -> float:
        return min(self.pacing_rate * train_time(self.path.min_rtt), MAX_QUANTUM)

    def sees_room(self, lost: float, inflight: float) -> bool:
        """What `has_room` is after an acknowledgement. The arguments are those of `is_too_high`."""
        if self.state is not State.STARTUP or self.path.full_reached or not self.pacing_rate:
            return False
        train = max(self._quantum, self.size) / self.pacing_rate  # where the path takes that rate
        no_queue = self.latest_rtt <= self.path.min_rtt * QUIET + train
        return no_queue and not self.is_too_high(lost, inflight)

    def is_drained(self, bytes_in_flight: int) -> bool:
        """The queue that was built is gone. Where acknowledgements wait for one another more than the draft's product
        of rate and delay is on its way even then; round trips tell."""
        return bytes_in_flight <= self.inflight or self.loss.quiet

    def is_too_high(self, lost: float, inflight: float) -> bool:
        """`lost` bytes since a record was sent that brought the bytes in flight to `inflight`."""
        return self.loss.is_too_high(lost, inflight, self.size, self.latest_rtt <= self.quiet_rtt)

    def start_pacing(self, smoothed_rtt: float, lost: int) -> None:
        """At the first acknowledgement; so many bytes were lost before. Small control messages say nothing of the path:
        the initial window does."""
        stretch = min(max(smoothed_rtt / FULL_START_RTT, 1.0), MAX_START_STRETCH)
        window = stretch * initial_window(self.size)
        self._start_until, self._start_lost = self.delivered + window, lost
        self.window = max(self.window, window)
        self.pacing_rate = STARTUP_PACING_GAIN * window / smoothed_rtt

    def check_start(self, lost: int) -> bool:
        """So many bytes were lost in all. As long as the first window has not passed, more than RFC 9002 would have
        sent at first shows that it was too much: go on with that, and with the rate that did pass. True if so."""
        modest = initial_window(self.size)
        too_much = lost - self._start_lost > modest
        if self.delivered >= self._start_until or not too_much or self.path.min_rtt == inf:
            return False
        self._start_until = 0.0
        self.window = min(self.window, modest)
        self.pacing_rate = STARTUP_PACING_GAIN * max(self.bandwidth, modest / self.path.min_rtt)
        return True

    def set_pacing_rate(self, gain: float) -> None:
        rate = gain * self.bandwidth * (TINY_PATH_PACING_MARGIN if self.is_path_tiny else PACING_MARGIN)
        if self.has_room:
            rate = max(rate, gain * self.window / self.path.min_rtt)
        if self.path.full_reached or rate > self.pacing_rate:
            self.pacing_rate = rate

    @property
    def _window_gain(self) -> float:
        gain = UP_WINDOW_GAIN if self.state is State.UP else WINDOW_GAIN
        if self.has_room:
            gain = STARTUP_PACING_GAIN
        if self.inflight_long < inf:
            return gain + CONTENDED_GAIN
        return STEADY_WINDOW_GAIN if self.state in STEADY else gain

    def set_window(self, acked: int) -> None:
        state = self.state
        maximum = self._quantized(self.bdp(self._window_gain) + self.path.extra_acked)
        window = self.window
        if self.path.full_reached:
            window = min(window + acked, maximum)
        elif self.has_room and (window < maximum or self.delivered < self._start_until):
            window += (STARTUP_PACING_GAIN - 1) * acked
        elif window < maximum or self.delivered < initial_window(self.size):
            window += acked
        cap = self.loss.inflight_short
        if state is State.CRUISE:
            cap = min(cap, self.inflight_with_headroom)
        elif state is State.PROBE_RTT:
            cap = min(cap, self.inflight_with_headroom, self.probe_rtt_window)
        elif state in PROBE_BW:
            cap = min(cap, self.inflight_long)
        self.window = max(min(window, cap), self.min_window)

    def _quantized(self, inflight: float) -> float:
        inflight = max(inflight, QUANTA * self._quantum, self.min_window)
        return inflight + 2 * self.size if self.state is State.UP else inflight

    def random(self) -> int:
        """Spreads the probes of several flows (a linear congruential generator; nothing secret hangs on it)."""
        self._seed = (self._seed * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return self._seed >> 33

"""Sets of integers kept as sorted, disjoint, non-adjacent ranges: bytes to send, bytes present, records acknowledged.

Two parallel lists of starts and stops, found by bisection. A linear list costs 0.4 ms for each addition at 16,000 gaps
(measured in a QUIC library that has one); here it is a bisection and one memmove of pointers, under 10 µs, and the
common case, growing the last range, touches no other. A range is (start, stop), stop excluded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

# What both ends of a transfer hold each other to.
MAX_TOLD = 4096  # ranges in one message
MAX_BLOCKS = 1 << 20  # of a transfer
DIGEST_SIZE = 32  # bytes of the BLAKE3 of a block, and of a transfer
MAX_LEFT_OUT = 128 << 10  # bytes of the packed set of entries in one message


class RangeSet:
    """A mutable set of integers. `total` is how many there are, `len()` how many ranges they make."""

    __slots__ = ("_starts", "_stops", "total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.total = 0
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> int:
        """Cover [start, stop). Returns how many integers were not covered before."""
        if start >= stop:
            return 0
        starts, stops = self._starts, self._stops
        if stops and start == stops[-1]:  # in order: the last range grows
            stops[-1] = stop
            self.total += stop - start
            return stop - start
        # Ranges first <= i < last touch or overlap the new one, adjacent ones included.
        first = bisect_left(stops, start)
        last = bisect_right(starts, stop, first)
        if first == last:
            starts.insert(first, start)
            stops.insert(first, stop)
            self.total += stop - start
            return stop - start
        if last - first == 1:
            covered = stops[first] - starts[first]
        else:
            covered = sum(stops[first:last]) - sum(starts[first:last])
        start = min(start, starts[first])
        stop = max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]
        added = stop - start - covered
        self.total += added
        return added

    def subtract(self, start: int, stop: int) -> int:
        """Uncover [start, stop). Returns how many integers were covered before."""
        if start >= stop:
            return 0
        starts, stops = self._starts, self._stops
        first = bisect_right(stops, start)  # adjacent ranges are not touched
        last = bisect_left(starts, stop, first)
        if first == last:
            return 0
        kept = []
        if starts[first] < start:
            kept.append((starts[first], start))
        if stops[last - 1] > stop:
            kept.append((stop, stops[last - 1]))
        removed = sum(stops[first:last]) - sum(starts[first:last]) - sum(b - a for a, b in kept)
        starts[first:last] = [a for a, _ in kept]
        stops[first:last] = [b for _, b in kept]
        self.total -= removed
        return removed

    def peek_first(self, limit: int) -> tuple[int, int]:
        """At most `limit` integers off the first range. Raises IndexError if the set is empty."""
        start = self._starts[0]
        return start, min(self._stops[0], start + limit)

    def pop_first(self, limit: int) -> tuple[int, int]:
        """Take at most `limit` integers off the first range. Raises IndexError if the set is empty."""
        start, stop = self._starts[0], self._stops[0]
        if stop - start > limit:
            stop = start + limit
            self._starts[0] = stop
        else:
            del self._starts[0], self._stops[0]
        self.total -= stop - start
        return start, stop

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is in the set. The empty range always is."""
        if start >= stop:
            return True
        i = bisect_right(self._starts, start) - 1
        return i >= 0 and stop <= self._stops[i]

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any of [start, stop) is in the set."""
        i = bisect_right(self._stops, start)
        return start < stop and i < len(self._starts) and self._starts[i] < stop

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges of [start, stop) that are not in the set, in order. The set must not change meanwhile."""
        for i in range(bisect_right(self._stops, start), len(self._starts)):
            if self._starts[i] >= stop:
                break
            if start < self._starts[i]:
                yield start, self._starts[i]
            start = self._stops[i]
        if start < stop:
            yield start, stop

    def clear(self) -> None:
        self._starts.clear()
        self._stops.clear()
        self.total = 0

    def largest(self) -> RangeSet:
        """At most MAX_TOLD of its ranges: of too many the largest, and of equal ones the first."""
        if len(self) <= MAX_TOLD:
            return RangeSet(self)
        return RangeSet(sorted(sorted(self, key=lambda r: r[0] - r[1])[:MAX_TOLD]))

    @property
    def first(self) -> int:
        """The smallest integer of the set. Raises IndexError if it is empty."""
        return self._starts[0]

    @property
    def last(self) -> int:
        """The largest integer of the set. Raises IndexError if it is empty."""
        return self._stops[-1] - 1

    def __contains__(self, value: int) -> bool:
        i = bisect_right(self._starts, value) - 1
        return i >= 0 and value < self._stops[i]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._stops, strict=True))

    def __reversed__(self) -> Iterator[tuple[int, int]]:
        return zip(reversed(self._starts), reversed(self._stops), strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment] # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

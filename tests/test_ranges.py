"""RangeSet against a plain set of integers, which is what it stands for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.wire.ranges import RangeSet

EDGE = 40
edges = st.integers(0, EDGE)
operations = st.lists(
    st.tuples(st.sampled_from(["add", "subtract", "pop", "covers", "overlaps", "gaps"]), edges, edges),
    min_size=1,
    max_size=60,
)


def check_form(ranges: RangeSet, model: set[int]) -> None:
    """The integers are right, the ranges sorted, non-empty and never adjacent, the total kept."""
    listed = list(ranges)
    assert {i for start, stop in listed for i in range(start, stop)} == model
    assert all(start < stop for start, stop in listed)
    assert all(before[1] < after[0] for before, after in pairwise(listed))
    assert ranges.total == len(model)
    assert len(ranges) == len(listed)
    assert bool(ranges) == bool(model)
    assert list(reversed(ranges)) == listed[::-1]
    if model:
        assert (ranges.first, ranges.last) == (min(model), max(model))
    for i in range(EDGE + 2):
        assert (i in ranges) == (i in model)


@given(operations)
def test_behaves_as_a_set_of_integers(steps: list[tuple[str, int, int]]) -> None:
    ranges, model = RangeSet(), set[int]()
    for name, start, stop in steps:
        asked = set(range(start, stop))
        match name:
            case "add":
                assert ranges.add(start, stop) == len(asked - model)
                model |= asked
            case "subtract":
                assert ranges.subtract(start, stop) == len(asked & model)
                model -= asked
            case "pop":
                limit = start + 1
                if not model:
                    with pytest.raises(IndexError):
                        ranges.pop_first(limit)
                else:
                    taken = ranges.pop_first(limit)
                    assert taken[0] == min(model)
                    assert 0 < taken[1] - taken[0] <= limit
                    assert set(range(*taken)) <= model
                    assert taken[1] - taken[0] == limit or taken[1] not in model
                    model -= set(range(*taken))
            case "covers":
                assert ranges.covers(start, stop) == (asked <= model)
            case "overlaps":
                assert ranges.overlaps(start, stop) == bool(asked & model)
            case "gaps":
                gaps = list(ranges.gaps(start, stop))
                assert RangeSet(gaps) == RangeSet((i, i + 1) for i in asked - model)
                assert len(gaps) == len(RangeSet(gaps))
        check_form(ranges, model)


def test_in_order_growth_is_one_range() -> None:
    ranges = RangeSet()
    for i in range(100):
        assert ranges.add(i * 10, i * 10 + 10) == 10
    assert list(ranges) == [(0, 1000)]


def test_no_gap_is_empty() -> None:
    ranges = RangeSet([(3, 5), (8, 9)])
    assert list(ranges.gaps(3, 9)) == [(5, 8)]
    assert list(ranges.gaps(5, 8)) == [(5, 8)]


def test_joins_across_many_gaps() -> None:
    ranges = RangeSet((i, i + 1) for i in range(0, 1000, 2))
    assert (len(ranges), ranges.total) == (500, 500)
    assert ranges.add(0, 1000) == 500
    assert list(ranges) == [(0, 1000)]
    ranges.clear()
    assert not ranges
    with pytest.raises(IndexError):
        ranges.pop_first(5)


def test_large_numbers() -> None:
    ranges = RangeSet([(1 << 60, (1 << 60) + 5)])
    assert (1 << 60) + 4 in ranges
    assert ranges.pop_first(2) == (1 << 60, (1 << 60) + 2)


def test_ends_of_an_empty_set() -> None:
    with pytest.raises(IndexError):
        _ = RangeSet().first
    with pytest.raises(IndexError):
        _ = RangeSet().last
    assert RangeSet() != 0
    assert repr(RangeSet([(1, 2)])) == "RangeSet([(1, 2)])"

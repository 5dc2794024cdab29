"""Path MTU search (RFC 8899). In the simulator: test_transfer.py, with black holes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpsend.transfer.mtu import BASE, MAX_PROBES, RAISE_INTERVAL, USUAL_SIZES, MtuSearch


def search(made: MtuSearch, path: int, now: float = 0.0) -> list[int]:
    """What is probed until the search rests, on a path that passes up to `path`."""
    probed = []
    while (size := made.next_probe(now)) is not None:
        made.on_probe_sent(size)
        assert made.next_probe(now) is None, "one at a time"
        probed.append(size)
        if size <= path:
            assert made.on_probe_acked(size)
        else:
            made.on_probe_lost(size)
        assert len(probed) < 60
    return probed


@pytest.mark.parametrize("ceiling", [1232, 1472, 8972, 65_507])
def test_the_ceiling_is_tried_first(ceiling: int) -> None:
    made = MtuSearch(ceiling)
    assert made.size == BASE
    assert search(made, ceiling) == [ceiling]
    assert made.size == ceiling


def test_below_it_by_halves() -> None:
    made = MtuSearch(8972)
    assert search(made, 1452) == [8972] * 3 + [1452] + [4052] * 3 + [1472] * 3
    assert made.size == 1452


@given(st.integers(BASE, 65_507), st.integers(BASE, 65_507))
def test_finds_the_largest_usual_size(ceiling: int, path: int) -> None:
    made = MtuSearch(ceiling)
    search(made, path)
    fitting = [size for size in (BASE, *USUAL_SIZES, ceiling) if size <= min(path, ceiling)]
    assert made.size == max(fitting)


@pytest.mark.parametrize("ceiling", [548, 1199, 1200])
def test_an_interface_smaller_than_the_base(ceiling: int) -> None:
    made = MtuSearch(ceiling)
    assert made.size == ceiling
    assert made.next_probe(0.0) is None


def test_it_takes_three_losses() -> None:
    made = MtuSearch(1472)
    for _ in range(MAX_PROBES - 1):
        assert made.next_probe(0.0) == 1472
        made.on_probe_sent(1472)
        made.on_probe_lost(1472)
    assert made.next_probe(0.0) == 1472
    made.on_probe_sent(1472)
    assert made.on_probe_acked(1472)
    assert made.size == 1472


def test_another_chance_after_ten_minutes() -> None:
    made = MtuSearch(1472)
    search(made, 1400)
    assert made.size == 1372
    assert made.next_probe(RAISE_INTERVAL - 1) is None
    assert search(made, 1472, RAISE_INTERVAL) == [1472]


def test_black_hole() -> None:
    made = MtuSearch(1472)
    search(made, 1472)
    made.on_acked(10, 100)
    assert not made.on_lost(11, 1472), "once is chance"
    made.on_acked(12, 100)
    assert made.on_lost(13, 1472)
    assert made.size == BASE
    assert search(made, 1300) == [1372] * 3 + [1280]
    assert made.size == 1280


def test_a_black_hole_below_what_was_found() -> None:
    """The search had ended below the ceiling, and would rest for ten minutes."""
    made = MtuSearch(1472)
    search(made, 1452)
    for number in (10, 20):
        made.on_acked(number, 100)
        black_hole = made.on_lost(number + 1, 1452)
    assert black_hole
    assert search(made, 1412, now=60.0)[-1] == 1412
    assert made.size == 1412
    assert made.next_probe(60.0 + RAISE_INTERVAL - 1) is None
    assert search(made, 1472, 60.0 + RAISE_INTERVAL) == [1472]


def test_losses_that_are_no_black_hole() -> None:
    made = MtuSearch(1472)
    search(made, 1472)
    for number in range(0, 1000, 10):
        made.on_acked(number, 100)
        assert not made.on_lost(number + 5, 1472), "far from a small one that passed"
        assert not made.on_lost(number + 1, 1200), "small itself"
        assert not made.on_lost(number + 1, 1472)
        made.on_acked(number + 2, 1472)  # a large one passed
    assert made.size == 1472


def test_answers_that_come_late() -> None:
    made = MtuSearch(8972)
    made.on_probe_sent(8972)
    made.on_probe_lost(8972)
    made.on_probe_sent(8972)
    assert made.on_probe_acked(8972), "of the first"
    made.on_probe_lost(8972)
    assert made.size == 8972
    assert not made.on_probe_acked(8972)

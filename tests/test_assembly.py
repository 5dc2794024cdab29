"""Trains -> records, against a plain model: whatever was merged, split, reordered, doubled or forged on the way."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim import Train
from udpsend.errors import BadPacket
from udpsend.transfer.assembly import MAX_KEPT, MAX_PARTIALS, Assembly
from udpsend.wire.datagram import HEADER_SIZE, MAX_DATAGRAMS, MAX_TRAIN_SIZE, Arrival
from udpsend.wire.packets import KIND_PROBE, KIND_RECORD, Header

TAG = b"sevenby"
ADDRESS = ("10.0.0.1", 1)


def fragments(number: int, count: int, payload: int = 20, last: int | None = None) -> list[bytes]:
    """The datagrams of a record; every payload tells where it belongs."""
    datagrams = []
    for index in range(count):
        size = last if last is not None and index == count - 1 else payload
        body = f"{number}.{index}|".encode().ljust(payload, b".")[:size]
        datagrams.append(Header(KIND_RECORD, TAG, number, index, count).pack() + body)
    return datagrams


class Model:
    """Single datagrams, a dictionary for each record."""

    def __init__(self) -> None:
        self.parts: dict[int, dict[int, bytes]] = {}
        self.complete: dict[int, bytes] = {}

    def add(self, datagram: bytes) -> None:
        number, index, count = int.from_bytes(datagram[8:14]), datagram[14], datagram[15]
        parts = self.parts.setdefault(number, {})
        parts.setdefault(index, datagram[HEADER_SIZE:])
        if len(parts) == count and number not in self.complete:
            self.complete[number] = b"".join(parts[i] for i in range(count))


def assemble(trains: list[list[bytes]], *, genuine: bool = True) -> tuple[dict[int, bytes], Counter[str], Assembly]:
    drops: Counter[str] = Counter()
    done: dict[int, bytes] = {}
    assembly = Assembly(TAG, done.__contains__, drops)
    for train in trains:
        for arrival in Train.of(ADDRESS, ADDRESS, train).arrivals(gro=True):
            try:
                records = assembly.add_untrusted(arrival)
            except BadPacket as error:
                drops[str(error)] += 1
                continue
            for record in records:
                ciphertext = bytes(record.ciphertext)
                assert record.header[:15] == Header(KIND_RECORD, TAG, record.number, 0, 1).pack()[:15]
                kept = done.setdefault(record.number, ciphertext)
                assert kept == ciphertext or not genuine, "a copy is the same"
    return done, drops, assembly


def test_nothing_is_kept_of_what_is_complete() -> None:
    first, second = fragments(1, 4), fragments(2, 4)
    done, _, assembly = assemble([first[:2], second[:2], first[2:], second[2:]])
    assert done.keys() == {1, 2}
    assert not assembly._partials
    assert assembly._kept == 0


@pytest.mark.parametrize("count", [MAX_DATAGRAMS, MAX_DATAGRAMS + 1, 300])
def test_more_datagrams_at_once_than_a_record_has(count: int) -> None:
    """Whoever saw the tag can send them, and the receiving side may have joined them."""
    datagrams = [Header(KIND_RECORD, TAG, 1, 0, 1).pack()] * count
    drops: Counter[str] = Counter()
    arrival = Arrival.of(datagrams, ADDRESS)
    assert arrival.count == count
    records = Assembly(TAG, lambda _: False, drops).add_untrusted(arrival)
    assert len(records) == count


records = st.lists(st.tuples(st.integers(1, 12), st.sampled_from((20, 7)), st.integers(1, 20)), min_size=1, max_size=8)


@given(records, st.randoms(use_true_random=False), st.sampled_from(("in order", "shuffled", "near")), st.data())
@settings(max_examples=300)
def test_against_a_model(shapes: list[tuple[int, int, int]], random: Random, order: str, data: st.DataObject) -> None:
    datagrams = [
        d
        for number, (count, payload, last) in enumerate(shapes)
        for d in fragments(number, count, payload, min(last, payload))
    ]
    lost = data.draw(st.sets(st.integers(0, len(datagrams) - 1), max_size=3))
    doubled = data.draw(st.sets(st.integers(0, len(datagrams) - 1), max_size=3))
    sequence = [d for i, d in enumerate(datagrams) if i not in lost for _ in range(2 if i in doubled else 1)]
    if order == "shuffled":
        random.shuffle(sequence)
    elif order == "near":
        for i in range(len(sequence) - 1):
            if random.random() < 0.3:
                sequence[i], sequence[i + 1] = sequence[i + 1], sequence[i]
    trains, at = [], 0
    while at < len(sequence):
        length = random.randrange(1, 20)
        trains.append(sequence[at : at + length])
        at += length
    model = Model()
    for datagram in sequence:
        model.add(datagram)
    done, _, _ = assemble(trains)
    assert done == model.complete


@given(st.randoms(use_true_random=False), st.integers(1, 30))
def test_forged_fragments_spoil_their_own_record_alone(random: Random, forgeries: int) -> None:
    datagrams = [d for number in range(10) for d in fragments(number, 4)]
    forged_numbers = set()
    for _ in range(forgeries):
        number, count = random.randrange(5), random.choice((1, 3, 4, 64))
        forged_numbers.add(number)
        header = Header(KIND_RECORD, TAG, number, random.randrange(count), count)
        datagrams.insert(random.randrange(len(datagrams)), header.pack() + random.randbytes(20))
    done, _, _ = assemble([[d] for d in datagrams], genuine=False)
    for number in set(range(10)) - forged_numbers:
        assert done[number] == b"".join(d[HEADER_SIZE:] for d in fragments(number, 4))


@pytest.mark.parametrize("count", [1, 2, 44, MAX_DATAGRAMS])
@pytest.mark.parametrize("last", [1, 20])
def test_a_whole_record_passes_without_a_copy(count: int, last: int) -> None:
    assembly = Assembly(TAG, lambda _: False, Counter())
    arrival = Arrival.of(fragments(7, count, 20, last), ADDRESS)
    (record,) = assembly.add_untrusted(arrival)
    assert record.ciphertext is arrival.payloads
    assert record.header == Header(KIND_RECORD, TAG, 7, 0, count).pack()
    assert assembly.datagrams == count


def test_two_records_merged_and_one_split() -> None:
    a, b = fragments(1, 3), fragments(2, 5)
    done, drops, assembly = assemble([a + b[:2], b[2:]])
    assert sorted(done) == [1, 2]
    assert not drops
    assert assembly.datagrams == 8


def test_a_stranger_in_front_of_a_train_takes_nothing_along() -> None:
    stranger = Header(KIND_RECORD, b"another", 1, 0, 3).pack().ljust(36, b"!")
    done, drops, assembly = assemble([[stranger, *fragments(1, 3)]])
    assert sorted(done) == [1]
    assert drops == {"tag": 1}
    assert assembly.datagrams == 3


def test_a_whole_record_is_taken_whatever_was_forged_of_it_before() -> None:
    forged = Header(KIND_RECORD, TAG, 1, 1, 3).pack().ljust(36, b"!")
    done, _, _ = assemble([[forged], fragments(0, 2) + fragments(1, 3)])
    assert done[1] == b"".join(d[HEADER_SIZE:] for d in fragments(1, 3))


def test_a_run_that_is_partly_here() -> None:
    datagrams = fragments(1, 6)
    done, _, _ = assemble([datagrams[2:4], datagrams[1:5], datagrams[0:2], datagrams[4:]])
    assert done[1] == b"".join(d[HEADER_SIZE:] for d in datagrams)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\xe0",
        bytes(16),
        Header(KIND_RECORD, b"another", 0, 0, 1).pack(),
        Header(KIND_PROBE, TAG, 0, 0, 1).pack(),
        Header(KIND_RECORD, TAG, 0, 0, 1).pack()[:15] + b"\0",
    ],
)
def test_what_does_not_begin_as_ours(first: bytes) -> None:
    assembly = Assembly(TAG, lambda _: False, Counter())
    with pytest.raises(BadPacket):
        assembly.add_untrusted(Arrival.of([first], ADDRESS))
    assert assembly.datagrams == 0


def test_others_in_the_middle_of_a_train() -> None:
    """Offload merges by address: a stranger who forges the source can be inside."""
    a = fragments(1, 2)
    stranger = Header(KIND_RECORD, b"another", 0, 0, 1).pack() + bytes(20)
    done, drops, _ = assemble([[a[0], stranger, a[1], b"short"]])
    assert list(done) == [1]
    assert drops == {"tag": 1, "short header": 1}


def test_another_count_for_the_same_record() -> None:
    done, drops, _ = assemble([[fragments(1, 3)[0]], [fragments(1, 4)[1]], fragments(1, 3)[1:]])
    assert list(done) == [1]
    assert drops == {"fragment count": 1}


def test_the_memory_for_incomplete_records_is_bounded() -> None:
    _, drops, assembly = assemble([[fragments(number, 2)[0]] for number in range(1000)])
    assert len(assembly._partials) == MAX_PARTIALS
    assert drops == {"incomplete record": 1000 - MAX_PARTIALS}
    assert min(assembly._partials) == 1000 - MAX_PARTIALS, "the oldest are forgotten"


def test_a_beginning_that_came_with_something_else_is_kept_in_a_few_pieces() -> None:
    assembly = Assembly(TAG, lambda _: False, Counter())
    datagrams = fragments(1, 176)
    assert len(assembly.add_untrusted(Arrival.of([*datagrams[:132], *fragments(2, 1, 20)], ADDRESS))) == 1
    assert len(assembly._partials[1].runs) <= 8
    (record,) = assembly.add_untrusted(Arrival.of(datagrams[132:], ADDRESS))
    assert record.ciphertext == b"".join(datagram[HEADER_SIZE:] for datagram in datagrams)


@pytest.mark.parametrize("grows", [False, True])
def test_incomplete_records_are_bounded_in_bytes(grows: bool) -> None:
    """Those that grow when many have begun, too."""
    order = (
        [(n, i) for i in range(4) for n in range(MAX_PARTIALS)]
        if grows
        else [(n, i) for n in range(MAX_PARTIALS) for i in range(4)]
    )
    payload = b"." * (MAX_TRAIN_SIZE // 5)
    kept = [[Header(KIND_RECORD, TAG, number, index, 5).pack() + payload] for number, index in order]
    done, drops, assembly = assemble(kept)
    assert not done
    assert drops["incomplete record"] > 40
    assert assembly._kept == sum(partial.size for partial in assembly._partials.values()) <= MAX_KEPT


@pytest.mark.parametrize("count", [5, MAX_DATAGRAMS])
def test_no_record_is_larger_than_a_train(count: int) -> None:
    """Everybody on the path knows the tag, and may send any number of large datagrams."""
    payload = 65_500
    forged = [Header(KIND_RECORD, TAG, 7, index, count).pack() + bytes(payload) for index in range(count)]
    done, drops, assembly = assemble([[datagram] for datagram in forged])
    assert not done
    assert drops == {"record too long": count // 5}
    assert not assembly._partials
    assert not assembly._kept


def test_no_train_is_a_record_larger_than_a_train() -> None:
    payload = MAX_TRAIN_SIZE // MAX_DATAGRAMS + 1
    forged = [
        Header(KIND_RECORD, TAG, 7, index, MAX_DATAGRAMS).pack() + bytes(payload) for index in range(MAX_DATAGRAMS)
    ]
    with pytest.raises(BadPacket, match="too long"):
        Assembly(TAG, lambda _: False, Counter()).add_untrusted(Arrival.of(forged, ADDRESS))

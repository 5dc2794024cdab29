"""What the peer says of addresses and NATs, under its seal: no word raises, and what is kept is bounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from udpsend.config import Role
from udpsend.punching.behaviour import NatBehaviour
from udpsend.punching.negotiation import MAX_GENERATIONS, Negotiation
from udpsend.wire.candidate import MAX_CANDIDATES, Candidate, CandidateType

HOSTS = st.sampled_from(["203.0.113.1", "192.168.1.7", "127.0.0.1", "2001:db8::1", "224.0.0.1", "x", "0.0.0.0"])  # noqa: S104
PORTS = st.sampled_from([0, 1, 4000, 65_535, 65_536, -1])
KINDS = st.sampled_from([*(kind.value for kind in CandidateType), "magic"])
MAPPINGS = st.sampled_from(["unknown", "silent", "none", "independent", "dependent", "magic"])
SCRAPS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
ADDRESSES = st.tuples(HOSTS, PORTS).map(list)
WORDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(st.tuples(KINDS, HOSTS, PORTS).map(list) | SCRAPS, max_size=40) | SCRAPS,
        "nat": st.tuples(MAPPINGS, st.none() | HOSTS, PORTS, st.booleans()).map(list) | st.lists(SCRAPS) | SCRAPS,
        "opened": st.lists(ADDRESSES | SCRAPS, max_size=80) | SCRAPS,
        "punch": st.integers(-1, MAX_GENERATIONS + 2) | SCRAPS,
        "host": SCRAPS,
    },
)


@given(st.lists(WORDS, max_size=8), st.sampled_from(list(Role)))
@settings(max_examples=200)
def test_words_of_any_kind_do_no_harm(words: list[dict[str, Any]], role: Role) -> None:
    own = [Candidate(CandidateType.HOST, ("192.168.1.7", 4000))]
    negotiation = Negotiation(role, bytes, own, "token", Counter())
    negotiation.agreed(bytes(32), words[0] if words else {}, 500, 0.0)
    generation = 0
    for number, word in enumerate(words[1:], 1):
        negotiation.word_received(word, 500, float(number))
        assert generation <= negotiation.generation <= MAX_GENERATIONS
        generation = negotiation.generation
        while negotiation.next_event() is not None:
            pass
        for said in negotiation.words_to_send():
            opened = said.get("opened", [])
            assert isinstance(opened, list)
            assert len(opened) <= 2 * MAX_CANDIDATES
        for transmit in negotiation.datagrams_to_send(float(number)):
            assert transmit.size == 80


def test_many_words_are_not_answered_by_as_many() -> None:
    negotiation = Negotiation(Role.SENDER, bytes, [], "token", Counter())
    negotiation.agreed(bytes(32), {}, 500, 0.0)
    negotiation.set_behaviour(NatBehaviour(), 0.0)
    for number in range(1, 900):
        candidate = Candidate(CandidateType.HOST, (f"203.0.{number >> 8}.{number & 255}", 4000))
        negotiation.word_received({"candidates": [candidate.to_json()]}, 500, 0.0)
    assert len(negotiation.words_to_send()) <= 2 * MAX_CANDIDATES + 1

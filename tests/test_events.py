"""Events and errors are values: they go to other processes and into logs as they are."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from udpsend import errors, events
from udpsend.files.entries import Directory, File
from udpsend.files.manifest import Manifest
from udpsend.telling import offered_event

OFFERED = offered_event(Manifest([Directory("tree", 0o755, 0), File("tree/a", 7, 0o644, 0, 0)]))


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


@pytest.mark.parametrize(
    "event",
    [
        OFFERED,
        events.CodeReady("4821-marble-otter"),
        events.PathFound(events.PathKind.IPV6, ("::1", 9), 0.1),
        events.Skipped(1, (("a", "b"),)),
        events.Statistics({"datagrams sent": 1.0}),
    ],
)
def test_an_event_goes_to_another_process(event: events.Event) -> None:
    for other in (pickled(event), copy.deepcopy(event)):
        assert other == event
        assert repr(other) == repr(event)


def test_what_is_offered_goes_with_its_paths() -> None:
    """It went through its manifest, which holds what cannot be pickled."""
    other = pickled(OFFERED)
    assert list(other.listing) == list(OFFERED.listing) == [("tree", None), ("tree/a", 7)]


def test_an_error_goes_to_another_process() -> None:
    other = pickled(errors.Refused("Declined.", "told"))
    assert (type(other), str(other), other.told) == (errors.Refused, "Declined.", "told")

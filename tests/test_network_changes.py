"""Networks that change while a file is on its way, with the program and real NATs: the transfer goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.netlab import missing_requirements
from tools.netlab.changes import CHANGES, run_change

pytestmark = pytest.mark.skipif(missing_requirements() is not None, reason=str(missing_requirements()))

SIZE = 12_000_000
LAST_ROUND_TRIPS = 1_500_000  # bytes: what was in flight and is lost, and the overhead of all the rest


@pytest.mark.parametrize(("name", "paths"), [("hard-nat-rebinds", 2), ("new-address", 2), ("broker-gone", 1)])
def test_a_transfer_survives(name: str, paths: int, tmp_path: Path) -> None:
    outcome = run_change(CHANGES[name], tmp_path, SIZE)
    assert outcome.ends == ("Verified", "Verified"), outcome.line()
    assert outcome.paths == paths, outcome.line()
    assert outcome.extra_bytes < SIZE / 10 + LAST_ROUND_TRIPS, outcome.line()

"""Every row of the laboratory's matrix once: from file to file through each kind of network, or an honest refusal."""

from __future__ import annotations

import pytest

from tools.netlab import missing_requirements
from tools.netlab.matrix import Result, run_rows
from tools.netlab.rows import ROWS
from tools.netlab.servers import missing_program

_REASON = missing_requirements() or missing_program("mosquitto", "turnserver", "miniupnpd")
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

JOBS = 2


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    """Of the rows that are asked for. Several run at once, and those that mostly wait do so together."""
    names = {row for item in request.session.items for row in ROWS if item.name.endswith(f"[{row}]")}
    rows = [row for name, row in ROWS.items() if name in names]
    return {result.row.name: result for result in run_rows(rows, 1, JOBS)}


@pytest.mark.parametrize("name", ROWS)
def test_a_pair_of_networks_has_the_path_that_it_should(name: str, results: dict[str, Result]) -> None:
    assert results[name].is_expected, results[name].line()

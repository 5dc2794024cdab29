"""Rows of the laboratory's matrix that take seconds: from file to file through each kind of network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.netlab import missing_requirements
from tools.netlab.matrix import ROWS, run_row

pytestmark = pytest.mark.skipif(missing_requirements() is not None, reason=str(missing_requirements()))

PATHS = (
    "full-cone / full-cone",
    "masquerade-open / masquerade-open",
    "masquerade / symmetric-sequential",
    "masquerade-open / symmetric-random",
    "masquerade / port-restricted, mtu 1280",
    "masquerade / masquerade, same private True",
    "two layers",
    "one NAT, one LAN",
    "one carrier with hairpin",
    "IPv6 only, firewalls",
)


@pytest.mark.parametrize("name", PATHS)
def test_a_pair_of_networks_has_the_path_that_it_should(name: str, tmp_path: Path) -> None:
    result = run_row(ROWS[name], 1, tmp_path)
    assert result.expected == result.runs, result.line()

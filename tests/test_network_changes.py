"""Networks that change while a file is on its way, with the program and real NATs: the transfer goes on.

How long that takes, `make netlab` measures. Here nothing depends on the speed of the machine: the change comes when a
third has arrived, and a transfer that had begun anew would have sent that third twice. Whether another path is told, or
the first datagrams of the new punching move the connection before it is over, is a matter of milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.netlab import missing_requirements
from tools.netlab.changes import CHANGES, run_change
from tools.netlab.servers import missing_program

_REASON = missing_requirements() or missing_program("mosquitto", "turnserver")
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

SIZE = 12_000_000
SENT_BEFORE = SIZE // 3


@pytest.mark.parametrize("name", ["nat-rebinds", "hard-nat-rebinds", "new-address", "broker-gone"])
def test_a_transfer_survives(name: str, tmp_path: Path) -> None:
    outcome = run_change(CHANGES[name], tmp_path, SIZE)
    assert outcome.ends == ("Verified", "Verified"), outcome.line()
    assert outcome.extra_bytes < SENT_BEFORE, outcome.line()

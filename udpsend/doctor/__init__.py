"""Which way out of here there is, and with whom a direct path would work: what `udpsend doctor` asks.

`diagnose` runs the examinations side by side, each in a thread of its own and each bounded in time: `places` (brokers
and STUN servers), `nat` (RFC 4787 behaviour and lifetimes, asked with `stun_probe`), `system` (addresses, sockets, MTU)
and the router's port mappings. What they find is a `Diagnosis`; `outlook` judges from it. `try_pair` meets another
doctor with the same code, and punches.
"""

from __future__ import annotations

from udpsend.doctor.diagnosis import Diagnosis
from udpsend.doctor.examination import diagnose
from udpsend.doctor.outlook import Prospect, prospects
from udpsend.doctor.pair import PairReport, try_pair

__all__ = ["Diagnosis", "PairReport", "Prospect", "diagnose", "prospects", "try_pair"]

"""`python -m udpsend` is `udpsend`."""

from __future__ import annotations

from udpsend.cli import run

if __name__ == "__main__":
    run()

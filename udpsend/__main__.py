"""`python -m udpsend` is `udpsend`."""

from __future__ import annotations

import sys

from udpsend.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""The one clock: monotonic seconds."""

from time import monotonic as now
from time import sleep

__all__ = ["now", "sleep"]

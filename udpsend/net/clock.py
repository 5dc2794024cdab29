"""The one clock: monotonic seconds."""

from time import monotonic as now

__all__ = ["now"]

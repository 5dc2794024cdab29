"""How well the congestion control does, judged in the simulator: `python -m tools.matrix`."""

from __future__ import annotations


def numbers(text: str) -> tuple[float, ...]:
    """An option of several, with commas between."""
    return tuple(float(number) for number in text.split(","))

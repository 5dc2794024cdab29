"""How well the congestion control does, judged in the simulator: `python -m tools.matrix`."""

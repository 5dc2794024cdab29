"""Two flows through one bottleneck, and what part of it the first one gets."""

from __future__ import annotations

from tools.matrix.cell import Cell
from tools.matrix.flows import Bottleneck
from udpsend.config import Config

BBR = Config()
CUBIC = Config(congestion="cubic")
BACKGROUND = Config(background=True)


def share(
    cell: Cell, ours: Config, theirs: Config = CUBIC, *, seed: int = 1, seconds: float = 60.0
) -> tuple[float, float]:
    """(the first flow's part of what both got, what both got of the link)."""
    bottleneck = Bottleneck(seed, **cell.link())
    first = bottleneck.flow("ours", config=ours)
    second = bottleneck.flow("theirs", config=theirs)
    bottleneck.network.run(seconds=seconds)
    both = first.received + second.received
    return first.received / both, both / seconds / cell.rate

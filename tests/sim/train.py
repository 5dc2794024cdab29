"""What travels: datagrams of one sender to one address that nothing has separated yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from udpsend.wire.datagram import Address, Arrival


@dataclass(slots=True)
class Train:
    """Links and routers treat it as a value: a changed one is a new one."""

    source: Address
    destination: Address
    datagrams: Sequence[bytes]
    size: int
    ttl: int = 64

    @classmethod
    def of(cls, source: Address, destination: Address, datagrams: Sequence[bytes], ttl: int = 64) -> Train:
        return cls(source, destination, datagrams, sum(map(len, datagrams)), ttl)

    def with_datagrams(self, datagrams: Sequence[bytes]) -> Train:
        return Train.of(self.source, self.destination, datagrams, self.ttl)

    def one_hop_on(self) -> Train:
        return replace(self, ttl=self.ttl - 1)

    def with_source(self, source: Address) -> Train:
        return replace(self, source=source)

    def with_destination(self, destination: Address) -> Train:
        return replace(self, destination=destination)

    def arrivals(self, gro: bool) -> Iterator[Arrival]:
        """As the socket reports them: with GRO, runs of up to 64 equal datagrams of which the last may be shorter."""
        datagrams = self.datagrams
        start = 0
        while start < len(datagrams):
            stop = start + 1
            stride = len(datagrams[start])
            while gro and stop < len(datagrams) and stop - start < 64 and 0 < len(datagrams[stop]) <= stride:
                stop += 1
                if len(datagrams[stop - 1]) < stride:
                    break
            yield Arrival.of(datagrams[start:stop], self.source)
            start = stop

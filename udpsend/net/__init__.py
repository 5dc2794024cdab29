"""Sealed trains <-> socket: offload, clock and loop."""

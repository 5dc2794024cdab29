"""How much may be in flight, and how fast it may leave: one seam, several tenants."""

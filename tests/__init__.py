"""Tests. `tests.sim` is the virtual network; one file per topic beside it."""

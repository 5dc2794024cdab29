"""Values <-> bytes, without state."""

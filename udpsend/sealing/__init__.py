"""Records <-> sealed trains: keys, AEAD, replay window."""

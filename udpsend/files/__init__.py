"""Files <-> byte ranges: what is offered, where it is read, where it is written, and what survives a crash."""

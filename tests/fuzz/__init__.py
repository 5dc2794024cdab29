"""Every parser of network bytes, fed with bytes that mean harm: BadPacket or a value, nothing else."""

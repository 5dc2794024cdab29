"""Byte ranges <-> records: a reliable sliding-window protocol, sans-IO."""

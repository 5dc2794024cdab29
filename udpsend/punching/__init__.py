"""Candidates -> one path that both sides have proved."""

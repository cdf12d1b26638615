"""Boards that fail: what is retried, and when a board is put into quarantine."""

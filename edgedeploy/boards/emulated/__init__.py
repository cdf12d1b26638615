"""Boards that are emulated on this host."""

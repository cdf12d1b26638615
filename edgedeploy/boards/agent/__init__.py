"""Boards whose agent is reached over a transport: pushed, leased, asked."""

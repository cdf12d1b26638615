"""Boards that misbehave: what a failed attempt costs, and when a board is set aside."""

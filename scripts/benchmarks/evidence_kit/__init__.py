"""Rows of the table that `scripts/bench evidence` prints: one module per part, one function per row, listed in its
``ROWS``."""

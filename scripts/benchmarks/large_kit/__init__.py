"""Rows of the table that `scripts/bench large` prints: one module per part, one function per row, listed in its ``ROWS``."""

"""Rows of the table that `scripts/bench clinic` prints: one module a part, one function a row, listed in its
``ROWS``."""

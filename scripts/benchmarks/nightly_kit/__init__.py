"""Rows of the table that `scripts/bench nightly` prints: one module per part, one function per row, listed in its
``ROWS``. `recorder` measures sessions for the record that the simulations draw from, `record` reads it."""

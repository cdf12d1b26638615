"""A bundle on a board: what its manifest says, whether it is whole, and who signed it."""

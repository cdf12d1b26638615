"""Several boards of one kind in one study, on one host or many."""

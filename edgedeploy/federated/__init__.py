"""Several sites, each with its own images and its own board: one checkpoint, an artifact for each, and one release."""

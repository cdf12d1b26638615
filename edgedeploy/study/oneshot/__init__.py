"""One model, one artifact, one board: what a study does for each of its variants, without a study."""

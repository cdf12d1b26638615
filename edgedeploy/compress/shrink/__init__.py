"""Smaller transformers: heads, MLP features, blocks, rank and tokens that a network does without, one file for each."""

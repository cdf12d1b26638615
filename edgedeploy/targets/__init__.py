"""Model in, artifact out: one room per target, and what they share."""

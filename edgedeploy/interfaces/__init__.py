"""The capabilities that other people implement, and what they exchange."""

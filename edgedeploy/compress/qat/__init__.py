"""Models that are trained to be int8."""

"""Torch in, torch out: structured pruning, weight inheritance, training and recovery by distillation."""

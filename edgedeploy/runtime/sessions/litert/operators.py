"""LiteRT's operators that multiply and add."""

from __future__ import annotations

COMPUTE_OPERATORS = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
)
"""Operators that multiply and add. The second input of each is its weight."""

ACTIVATION_INPUT = {"TRANSPOSE_CONV": 2, "CONV_3D_TRANSPOSE": 2}
"""Index of the activation input of operators whose first input is the shape of their output."""

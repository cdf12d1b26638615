"""Which whole number each weight becomes: the cheapest in bits and in what its error costs the network.

- Steps follow the curvature: at one exchange rate of bits for error, a step is inversely proportional to the root of what
  an error costs there; by layer, by output, and by input.
- Weights are rounded column by column, and the columns still to come make up for the error, as far as what they read
  resembles it (Frantar et al., "GPTQ", 2023).
- Of the two nearest whole numbers, the one is taken that costs less: its bits in the layer's own histogram, and its error
  (rate-distortion optimised quantization, as video coders do).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

DAMPING: Final = 0.02
"""Of the mean of H's diagonal, added to it: few cases were seen."""

STEP_OF_RATE: Final = 6.0 / math.log(2.0)
"""The squared step over the price of a bit: step^2 / 12 of error a weight is four times that with a bit less."""

BLOCK: Final = 64
PASSES: Final = 2


@dataclass(frozen=True)
class Cost:
    """What an error costs: ``factor`` is the upper triangle U with H^-1 = UT U, in the order ``order`` of columns;
    ``outputs`` the weight of each row."""

    order: Whole
    factor: Floats
    outputs: Floats

    @property
    def columns(self) -> Floats:
        """What a squared error in each column costs, once later columns made up for it; in the columns' own order."""
        found = np.empty(len(self.order))
        found[self.order] = 1 / np.diag(self.factor) ** 2
        return found


def cost_of(reads: Floats, outputs: Floats) -> Cost:
    """``reads`` is H, (columns, columns). Columns that read most go first: others make up for them."""
    diagonal = np.diag(reads)
    damped = reads + np.eye(len(reads)) * max(DAMPING * float(diagonal.mean()), 1e-12)
    order = np.argsort(-diagonal, kind="stable")
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    return Cost(order, np.asarray(factor, np.float64), np.maximum(outputs, 1e-3 * max(float(outputs.mean()), 1e-30)))


def rounded(matrix: Floats, steps: Floats, cost: Cost, price: float, prior: Whole | None = None) -> Whole:
    """Whole numbers (rows, columns) for ``matrix``, whose steps are (rows, columns). ``price`` is the error that a bit is
    worth. ``prior`` is what the receiver expects, from which differences are told; zeros where it expects nothing."""
    expected = np.zeros(matrix.shape, np.int64) if prior is None else prior
    bits = _bits(np.rint(matrix / steps).astype(np.int64) - expected)
    for _ in range(PASSES):
        codes = _one_pass(matrix, steps, cost, price, expected, *bits)
        bits = _bits(codes - expected)
    return codes


def _one_pass(matrix: Floats, steps: Floats, cost: Cost, price: float, prior: Whole, bits: Floats, low: int) -> Whole:
    left, steps, prior = matrix[:, cost.order].copy(), steps[:, cost.order], prior[:, cost.order]
    codes = np.zeros(left.shape, np.int64)
    factor, outputs = cost.factor, cost.outputs
    for start in range(0, left.shape[1], BLOCK):
        end = min(start + BLOCK, left.shape[1])
        errors = np.zeros((len(left), end - start))
        for column in range(start, end):
            alone = factor[column, column]
            wanted = left[:, column] / steps[:, column]
            near = np.rint(wanted).astype(np.int64)
            less = near - np.sign(near - prior[:, column])
            worth = outputs * (steps[:, column] / alone) ** 2
            gain = worth * ((wanted - less) ** 2 - (wanted - near) ** 2)
            told, shorter = (_place(some - prior[:, column], low, bits) for some in (near, less))
            saved = price * (bits[told] - bits[shorter])
            codes[:, column] = chosen = np.where(saved > gain, less, near)
            error = (left[:, column] - chosen * steps[:, column]) / alone
            errors[:, column - start] = error
            left[:, column + 1 : end] -= np.outer(error, factor[column, column + 1 : end])
        left[:, end:] -= errors @ factor[start:end, end:]
    found = np.empty_like(codes)
    found[:, cost.order] = codes
    return found


def _place(codes: Whole, low: int, bits: Floats) -> Whole:
    return np.clip(codes - low, 0, len(bits) - 1)


def _bits(codes: Whole) -> tuple[Floats, int]:
    """Bits of each code from the lowest on, by how often it comes; half a time for what never does."""
    low = int(codes.min()) - 1
    counts = np.bincount((codes - low).ravel(), minlength=int(codes.max()) - low + 2) + 0.5
    return -np.log2(counts / counts.sum()), low


def entropy_bits(codes: Whole) -> float:
    """Bits of all codes in their own histogram."""
    _, counts = np.unique(codes, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum())

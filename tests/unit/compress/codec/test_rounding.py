"""What a weight becomes: errors are made up for where inputs resemble each other, and cost what the curvature says."""

from __future__ import annotations

import numpy as np

from edgedeploy.compress.codec.rounding import cost_of, entropy_bits, rounded


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights (rows, columns), and what they multiply: (positions, columns) that resemble each other."""
    rng = np.random.default_rng(seed)
    reads = rng.standard_normal((2000, 12)) @ rng.standard_normal((12, 40)) + 0.3 * rng.standard_normal((2000, 40))
    return rng.standard_normal((16, 40)), reads


def error(weights: np.ndarray, codes: np.ndarray, steps: np.ndarray, reads: np.ndarray) -> float:
    return float(np.square(reads @ (weights - codes * steps).T).mean())


def test_later_columns_make_up_for_the_error_of_earlier_ones() -> None:
    weights, reads = layer()
    steps = np.full(weights.shape, 0.5)
    cost = cost_of(reads.T @ reads / len(reads), np.ones(len(weights)))
    alone = np.rint(weights / steps).astype(np.int64)
    together = rounded(weights, steps, cost, 0.0)
    assert error(weights, together, steps, reads) < 0.6 * error(weights, alone, steps, reads)


def test_a_price_for_bits_saves_bits() -> None:
    weights, reads = layer()
    steps = np.full(weights.shape, 0.5)
    cost = cost_of(reads.T @ reads / len(reads), np.ones(len(weights)))
    free, dear = (rounded(weights, steps, cost, price) for price in (0.0, 0.3))
    assert entropy_bits(dear) < entropy_bits(free)
    assert error(weights, free, steps, reads) < error(weights, dear, steps, reads)


def test_codes_stay_near_what_is_expected_where_bits_cost() -> None:
    weights, reads = layer()
    steps = np.full(weights.shape, 0.5)
    cost = cost_of(reads.T @ reads / len(reads), np.ones(len(weights)))
    before = rounded(weights, steps, cost, 0.1)
    moved = weights + 0.05 * np.random.default_rng(3).standard_normal(weights.shape)
    anew, following = rounded(moved, steps, cost, 0.1), rounded(moved, steps, cost, 0.1, before)
    assert (following != before).mean() < (anew != before).mean()


def test_dead_inputs_and_outputs_break_nothing() -> None:
    weights, reads = layer()
    reads[:, :7] = 0
    cost = cost_of(reads.T @ reads, np.zeros(len(weights)))
    codes = rounded(weights, np.full(weights.shape, 0.5), cost, 0.0)
    assert np.isfinite(cost.columns).all()
    assert np.abs(codes).max() < 1000

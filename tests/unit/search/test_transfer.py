"""Times on a second board, from a few probes: what is learned from them, and how far it may be wrong."""

from __future__ import annotations

import numpy as np

from edgedeploy.search.candidates import Column
from edgedeploy.search.surrogate import Features
from edgedeploy.search.transfer import Transfer

OPERATIONS = ("none", "skip", "small", "large")
EDGES = 5


def networks(rng: np.random.Generator, count: int) -> Features:
    columns = [Column(f"edge{index}", OPERATIONS, None) for index in range(EDGES)]
    return Features.of(columns, rng.integers(0, len(OPERATIONS), (count, EDGES)), np.zeros((count, 0)))


def test_deviations_count_that_a_handful_of_probes_leave_the_line_open() -> None:
    """Five probes and a line of five: what it leaves of them says nothing of how far it is from all others."""
    squares = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        source, statics = rng.normal(0, 1, 60), rng.normal(0, 1, (60, 3))
        here = 0.5 + 0.8 * source + statics @ rng.normal(0, 0.3, 3) + rng.normal(0, 0.1, 60)
        rows = np.arange(5)
        mean, deviation = Transfer(source, statics, networks(rng, 60)).predict(rows, here[rows])
        squares.append(np.mean(np.square((here - mean) / deviation)[5:]))
    assert 0.2 < np.median(squares) < 3.0


def test_what_each_operation_takes_is_learned_whichever_edge_it_is_on() -> None:
    rng = np.random.default_rng(0)
    features = networks(rng, 200)
    takes = np.array([0.3, 0.0, 0.1, -0.2])
    source = rng.normal(0, 0.3, 200)
    here = source + takes[features.codes].sum(axis=1)
    rows = np.arange(12)
    mean, _ = Transfer(source, np.zeros((200, 0)), features).predict(rows, here[rows])
    unexplained = np.std((here - mean)[12:]) / np.std((here - source)[12:])
    apart = Features(
        tuple(Column(column.name, (*OPERATIONS, column.name), None) for column in features.columns),
        features.codes,
        features.statics,
    )
    assert not apart.counts.shape[1], "columns with other values to choose from are not counted together"
    other, _ = Transfer(source, np.zeros((200, 0)), apart).predict(rows, here[rows])
    assert unexplained < 0.75 * np.std((here - other)[12:]) / np.std((here - source)[12:])


def test_without_parameters_and_figures_a_line_is_left() -> None:
    source = np.linspace(0, 1, 7)
    nothing = Features((), np.zeros((7, 0), dtype=np.intp), np.zeros((7, 0)))
    mean, deviation = Transfer(source, np.zeros((7, 0)), nothing).predict(np.array([0, 6]), source[[0, 6]] + 2.0)
    assert np.allclose(mean, source + 2.0, atol=0.01)
    assert np.all(deviation > 0)


def test_values_are_counted_among_columns_that_choose_from_the_same() -> None:
    columns = [Column("first", ("a", "b"), None), Column("second", ("a", "b"), None), Column("other", (1, 2), None)]
    codes = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]])
    counts = Features.of(columns, codes, np.zeros((4, 0))).counts
    assert counts.shape == (4, 2)
    assert np.allclose(counts[1], counts[2]), "an a and a b, in whatever order"
    assert np.allclose(counts[:, 0], -counts[:, 1])

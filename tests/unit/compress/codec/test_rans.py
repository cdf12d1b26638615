"""The entropy coder: what goes in comes out, close to the entropy, and a damaged stream is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.compress.codec.rans import MOST_SYMBOLS, decode, encode, lanes_for, table_of
from edgedeploy.errors import DataError


def laplace(count: int, scale: float, seed: int = 0) -> np.ndarray:
    return np.round(np.random.default_rng(seed).laplace(size=count) * scale).astype(np.int64)


def entropy_bytes(values: np.ndarray) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


@pytest.mark.parametrize("lanes", [1, 2, 7, 256])
@pytest.mark.parametrize("contexts", [1, 4, 8])
def test_all_arrays_of_a_stream_come_back(lanes: int, contexts: int) -> None:
    arrays = [laplace(n, 1.5, n) for n in (1, 2, 6, 7, 8, 255, 256, 257, 5000)] + [np.full(300, -3, np.int64)]
    tables = [table_of(values, contexts, lanes) for values in arrays]
    stream = encode(list(zip(arrays, tables, strict=True)), lanes)
    found = decode(stream, [(len(v), t) for v, t in zip(arrays, tables, strict=True)], lanes)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, found, strict=True))


def test_it_takes_one_percent_more_than_the_entropy() -> None:
    values = laplace(200_000, 1.2)
    lanes = lanes_for(len(values))
    size_bytes = len(encode([(values, table_of(values, 1, lanes))], lanes))
    assert entropy_bytes(values) <= size_bytes <= 1.01 * entropy_bytes(values)


def test_contexts_save_where_large_numbers_stand_together() -> None:
    rng = np.random.default_rng(0)
    scales = np.repeat(rng.gamma(1.0, 1.5, 20_000), 9)
    values = np.round(rng.laplace(size=len(scales)) * scales).astype(np.int64).clip(-60, 60)
    plain, aware = (len(encode([(values, table_of(values, contexts, 64))], 64)) for contexts in (1, 4))
    assert aware < 0.98 * plain


def test_a_stream_that_was_touched_or_cut_is_refused() -> None:
    values = laplace(3000, 2.0)
    table = table_of(values, 4, 4)
    stream = encode([(values, table)], 4)
    for broken in (stream[:-2], stream + b"\0\0", stream[:10], stream[:-1]):
        with pytest.raises(DataError):
            decode(broken, [(3000, table)], 4)
    with pytest.raises(DataError):
        decode(stream, [(2999, table)], 4)


def test_too_many_symbols_are_refused() -> None:
    with pytest.raises(DataError, match="larger steps"):
        table_of(np.array([0, MOST_SYMBOLS]), 1, 1)

"""Training cases in batches."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.tasks.batching import in_batches


@pytest.mark.parametrize(("count", "sizes"), [(12, [5, 5, 2]), (11, [5, 5]), (4, [4]), (1, []), (0, [])])
def test_every_case_is_in_one_batch_and_a_last_one_alone_in_none(count: int, sizes: list[int]) -> None:
    cases = [f"case-{number}" for number in range(count)]
    batches = in_batches(cases, 5, np.random.default_rng(3))
    assert [len(batch) for batch in batches] == sizes
    drawn = [case for batch in batches for case in batch]
    assert len(set(drawn)) == sum(sizes)
    assert set(drawn) <= set(cases)


def test_the_order_is_that_of_the_generator() -> None:
    one, same, other = (in_batches(range(100), 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one[0] != list(range(10))

"""Random numbers do not hang on the tests that ran before: each test has its own, and so has what several tests share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def first() -> torch.Tensor:
    return torch.rand(3)


@pytest.fixture(scope="module")
def second() -> torch.Tensor:
    return torch.rand(3)


@pytest.mark.parametrize("ran_before", [0, 1])
def test_whoever_draws_draws_the_same(ran_before: int, first: torch.Tensor, request: pytest.FixtureRequest) -> None:
    drawn = torch.rand(3)
    assert drawn.equal(first) and request.getfixturevalue("second").equal(first)
    assert not torch.rand(3).equal(first), "what another fixture draws is not drawn anew"

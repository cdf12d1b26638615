"""What an audit says first."""

from __future__ import annotations

import pytest

from edgedeploy.audit.page import verdict_of


@pytest.mark.parametrize(
    ("plant", "looked", "said"),
    [
        (["triggers"], ["residuals", "triggers"], "SLEEPING BACKDOOR found by triggers."),
        ([], ["residuals"], "No sleeping backdoor found by residuals."),
        ([], [], "Sleeping backdoors were NOT looked for"),
    ],
)
def test_nothing_is_said_to_be_absent_that_nobody_looked_for(plant: list[str], looked: list[str], said: str) -> None:
    assert verdict_of(plant, looked).startswith(said)

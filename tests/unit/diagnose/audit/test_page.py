"""What an audit says first."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.diagnose.audit import run
from edgedeploy.diagnose.audit.page import verdict_of
from edgedeploy.errors import GoalNotMet, SpecError


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


def test_a_study_without_a_pick_does_not_end_as_a_backdoor_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(folder: Path, pick: str) -> None:
        raise GoalNotMet(f"the {pick} of {folder}", "the study has none", "Name a variant")

    monkeypatch.setattr(run, "gather", none)
    with pytest.raises(SpecError, match=r"the study has none\. Name a variant") as told:
        run.audit(tmp_path, "pick")
    assert told.value.exit_code == 2

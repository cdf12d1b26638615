"""An invalid run is repeated at most N times, each time after the board has cooled down; the last one is kept as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up_study import ONE_TRIAL

from edgedeploy.interfaces.task import Split
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials

STUDY = f"""\
{ONE_TRIAL}[measure]
retries = 2
time_limit = "100 s"
cool_down = "30 s"
"""
HOT = "the hottest sensor went from 50 to 70 C"


class ScriptedTrials(Trials):
    """Trials whose runs are made up: one cause (or None) after the other. What each was asked is in ``asked``."""

    causes: list[str | None]
    asked: list[float | None]
    before: dict[str, Any]

    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        self.asked.append(cool_to_c)
        celsius = {name: value + 20.0 * (len(self.asked) - 1) for name, value in self.before.items()}
        return made_up.measurement(
            variant,
            cause=self.causes.pop(0),
            environment={"before": {"temperatures_c": celsius or None}, "after": {}},
        )


def scripted(folder: Path, causes: list[str | None], before: dict[str, float], heard: list[str]) -> ScriptedTrials:
    store = Store(folder)
    nothing: Any = None
    trials = ScriptedTrials(
        spec=spec(),
        run=nothing,
        provenance="measured",
        bench=nothing,
        store=store,
        account=Account(store),
        reference_baseline=made_up.variant(),
        metrics=made_up.TASK_METRICS,
        tell=heard.append,
    )
    for name, value in (("causes", causes), ("asked", []), ("before", before)):
        object.__setattr__(trials, name, value)
    return trials


def spec() -> StudySpec:
    return parse_spec(STUDY, Path("study.toml"))[0]


def test_repeats_until_the_conditions_hold(tmp_path: Path) -> None:
    heard: list[str] = []
    trials = scripted(tmp_path, [HOT, HOT, None], {"cpu": 41.0, "gpu": 44.0}, heard)
    assert trials.measure(made_up.variant(), "selection").valid
    # The first run started at 44 C. Both repeats wait for that, not for what the board had become.
    assert trials.asked == [None, 46.0, 46.0]
    assert [HOT in line for line in heard] == [True, True]


def test_gives_up_after_the_allowed_repeats(tmp_path: Path) -> None:
    heard: list[str] = []
    trials = scripted(tmp_path, [HOT] * 5, {"cpu": 41.0}, heard)
    last = trials.measure(made_up.variant(), "selection")
    assert (last.valid, last.cause) == (False, HOT)
    assert len(trials.asked) == 3
    assert len(list((tmp_path / "invalid").glob("*.json"))) == 3
    assert not list((tmp_path / "measurements").glob("*.json"))


def test_a_board_without_temperatures_is_repeated_at_once(tmp_path: Path) -> None:
    trials = scripted(tmp_path, ["other processes used 0.9 of a core", None], {}, [])
    assert trials.measure(made_up.variant(), "selection").valid
    assert trials.asked == [None, None]


@pytest.mark.parametrize(("cool_to_c", "limit_s", "wait_s"), [(None, 100.0, 0.0), (46.0, 130.0, 30.0)])
def test_cooling_has_its_own_time(tmp_path: Path, cool_to_c: float | None, limit_s: float, wait_s: float) -> None:
    plan = scripted(tmp_path, [], {}, [])._plan(True, cool_to_c)
    assert (plan.cool_to_c, plan.cool_down_s, plan.time_limit_s) == (cool_to_c, wait_s, limit_s)

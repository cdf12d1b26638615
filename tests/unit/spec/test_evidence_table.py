"""What a study file says has to be shown of a variant before it may be shipped."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from made_up_study import WITHOUT_ITS_TASK

from edgedeploy.errors import SpecError
from edgedeploy.records.goals import LostCase, Margin, Objective, Rules
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.spec.goals import rules_of
from edgedeploy.spec.study import parse_spec

DICE = Objective("dice_mean", "maximize")
HD95 = Objective("hd95_px", "minimize")


def rules(text: str) -> Rules:
    written = WITHOUT_ITS_TASK.replace("[evidence]\nmargin = 0.01\n", "")
    spec, source = parse_spec(f"{written}{text}\n", Path("study.toml"))
    known = {"onnxruntime": ("float32",), "openvino": ("float32",)}
    spec.check(source, architecture={}, task_metrics=made_up.TASK_METRICS, known_targets=known)
    return rules_of(spec, {**BOARD_METRICS, **made_up.TASK_METRICS})


@pytest.mark.parametrize(
    ("text", "margins", "lost"),
    [
        ("", (), None),
        ("[evidence]\nlost_case = 0.2", (), None),
        ("[evidence]\nmargin = 0.01", (Margin(DICE, 0.01),), LostCase(DICE, 0.1, None, stated=False)),
        ("[pick]\nnon_inferiority_margin = 0.02", (Margin(DICE, 0.02),), LostCase(DICE, 0.2, None, stated=False)),
        (
            "[evidence]\nmargin = 0.01\nlost_case = 0.3\nlost_share = 0.05\n[pick]\nnon_inferiority_margin = 0.02",
            (Margin(DICE, 0.01),),
            LostCase(DICE, 0.3, 0.05),
        ),
        (
            '[evidence]\nmargin = { hd95_px = "0.5 px", dice_mean = 0.01 }\nlost_case = "2 px"',
            (Margin(HD95, 0.5), Margin(DICE, 0.01)),
            LostCase(HD95, 2.0),
        ),
        (
            "[evidence]\nmargin = 0.01\nlost_case = { hd95_px = 3 }\nlost_share = 0.1",
            (Margin(DICE, 0.01),),
            LostCase(HD95, 3.0, 0.1),
        ),
    ],
)
def test_what_is_stated_is_what_has_to_be_shown(text: str, margins: tuple[Margin, ...], lost: LostCase | None) -> None:
    assert rules(text) == Rules(margins, lost)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[evidence]\nmargin = -1", "evidence.margin"),
        ('[evidence]\nmargin = "2 ms"', "evidence.margin"),
        ("[evidence]\nmargin = {}", "evidence.margin"),
        ("[evidence]\nmargin = { dise_mean = 1 }", "dice_mean"),
        ("[evidence]\nmargin = { latency_p50_ns = 1 }", "a margin is of a metric of the task"),
        ('[evidence]\nmargin = { hd95_px = "1 ms" }', "evidence.margin.hd95_px"),
        ("[evidence]\nmargin = 0.01\nlost_case = { dice_mean = 0.1, hd95_px = 3 }", "one metric"),
        ("[evidence]\nmargin = 0.01\nlost_share = 1.5", "lost_share"),
        ("[evidence]\nmargins = 0.01", "margin"),
        ('[evidence]\nmargin = 0.01\n[pick]\nnon_inferiority_margin = "1 ms"', "non_inferiority_margin"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rules(text)

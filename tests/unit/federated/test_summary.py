"""Which measured variant a candidate stands for, and what a run that says nothing comes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgedeploy.errors import OutOfTime, Unstable
from edgedeploy.federated.site import space_of
from edgedeploy.federated.summary import baseline_said, cell_said, row_of
from edgedeploy.records.variant import Variant

BITS8: dict[str, Any] = {"target": "onnxruntime", "precision": "int8", "weight_bits": 8}
BITS7 = {**BITS8, "weight_bits": 7}
CHOSEN = {"target": "onnxruntime", "precision": "int8"}


def variant(**changes: Any) -> Variant:
    return Variant(**{"target": "onnxruntime", "precision": "int8", "width": 1.0, "arch": (), "threads": 2, **changes})


def row(**changes: Any) -> Any:
    made = variant(**changes)
    return SimpleNamespace(variant=made, digest=made.digest)


ROWS = [
    row(precision="float32"),
    row(weight_bits=8),
    row(weight_bits=7),
    row(),
    row(weight_bits=7, calibration_cases=1),
]


@pytest.mark.parametrize(
    ("point", "place"),
    [
        (BITS8, 1),
        (BITS7, 2),
        (CHOSEN, 3),
        ({**BITS7, "calibration_cases": 1}, 4),
        ({**BITS7, "threads": 2}, 2),
        ({**BITS7, "calibration": "minmax"}, 2),  # the target's own, which a variant leaves out
    ],
)
def test_a_candidate_is_found_among_what_was_measured(point: dict[str, Any], place: int) -> None:
    assert row_of(point, ROWS) is ROWS[place]


@pytest.mark.parametrize("change", [{"target": "openvino"}, {"precision": "int8-dynamic"}, {"threads": 1}])
def test_another_variant_is_not_taken_for_it(change: dict[str, Any]) -> None:
    assert row_of({**BITS7, **change}, ROWS) is None


def test_a_variant_is_one_candidates_only() -> None:
    one = {**BITS7, "calibration_cases": 1}
    assert row_of(one, [ROWS[2]], [one, BITS7]) is None and row_of(BITS7, [ROWS[2]], [one, BITS7]) is ROWS[2]
    assert row_of(one, [ROWS[2]], [one]) is ROWS[2], "it is all that there is: the target knows no such setting"


def front(**changes: Any) -> Any:
    return SimpleNamespace(**{"rows": ROWS[:1], "failures": (), "passing": (), "invalid": (), **changes})


def test_a_failure_is_the_candidates_and_a_disturbed_run_is_nobodys() -> None:
    failure = SimpleNamespace(variant=variant(weight_bits=8), kind="BuildError", cause="")
    cell = cell_said(0, [BITS8], front(failures=(failure,)), {}, "dice", per_case=False)
    assert (cell.word, cell.failure) == ("failed", "BuildError") and not cell.shown
    assert cell_said(0, [BITS8], front(), {}, "dice", per_case=False).failure == "Unsupported"
    with pytest.raises(OutOfTime, match="candidate 1"):
        cell_said(0, [BITS8], front(), {}, "dice", per_case=False, out_of_time=True)
    for kind in ("passing", "invalid"):
        with pytest.raises(Unstable, match="says nothing"):
            cell_said(0, [BITS8], front(**{kind: (failure,)}), {}, "dice", per_case=False)


def test_the_space_of_a_release_holds_every_candidate() -> None:
    assert space_of([BITS8, BITS7, {**CHOSEN, "target": "openvino"}]) == {
        "precision": ["float32", "int8"],
        "weight_bits": [8, 7],
    }


@pytest.mark.parametrize(("cases", "told"), [(2, False), (4, False), (5, True)])
def test_sums_of_so_few_cases_that_they_are_those_cases_do_not_leave(cases: int, told: bool) -> None:
    artifact = SimpleNamespace(digest="1" * 16, size_bytes=9)
    values = {str(place): {"dice": 0.1 * place} for place in range(cases)}
    measured: Any = SimpleNamespace(artifact=artifact, cases=values, metrics={"dice": 0.3})
    said = baseline_said(measured, "dice", False, False)
    assert (said.accuracy is not None, said.worst is not None, said.cases) == (told, told, cases)
    assert baseline_said(measured, "dice", False, True).accuracy == 0.3, "a site that shares cases shares their mean"

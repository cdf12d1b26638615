"""What counts as the same answer, and as the precision that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgedeploy.errors import MeasurementError, ParityError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.variant import PRECISIONS
from edgedeploy.reference.parity import TOLERANCE, check_executed, check_parity, compare, judge, worst_distance


def outputs(seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {"out0": (generator.standard_normal((4, 3, 8, 8)) * scale).astype(np.float32)}


def off_by(share: float) -> dict[str, Array]:
    """The same outputs with noise of the given relative L2 size."""
    noise = np.random.default_rng(1).standard_normal((4, 3, 8, 8))
    reference = outputs()["out0"]
    return {
        "out0": (reference + noise * (share * np.linalg.norm(reference) / np.linalg.norm(noise))).astype(np.float32)
    }


def test_distances_are_what_they_say() -> None:
    found = compare({"a": np.array([3.0, 4.0])}, {"a": np.array([3.0, 4.5])})["a"]
    assert found["rel_l2"] == pytest.approx(0.1)
    assert found["max_abs"] == pytest.approx(0.5)
    assert found["sqnr_db"] == pytest.approx(20.0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_has_its_tolerance(precision: str) -> None:
    inside = check_parity(outputs(), off_by(TOLERANCE[precision] * 0.9), precision)
    assert inside["rel_l2"] == pytest.approx(TOLERANCE[precision] * 0.9, rel=1e-2)
    with pytest.raises(ParityError, match=f"out0.*{precision}"):
        check_parity(outputs(), off_by(TOLERANCE[precision] * 1.1), precision)


def test_one_bad_output_among_good_ones_is_enough() -> None:
    reference = outputs() | {"small": np.linspace(0, 1e-3, 50)}
    artifact = outputs() | {"small": np.linspace(1e-3, 0, 50)}
    with pytest.raises(ParityError, match="small"):
        check_parity(reference, artifact, "int8")


def test_rounding_at_the_end_of_a_sigmoid_is_no_difference() -> None:
    reference = {"out0": np.full(10, 2e-7) * np.arange(10)}
    assert check_parity(reference, {"out0": reference["out0"] + 1e-7}, "float32")["max_abs"] < 1e-6


@pytest.mark.fault(17)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(value: float) -> None:
    artifact = outputs()
    artifact["out0"][0, 0, 0, 0] = value
    with pytest.raises(ParityError, match="1 of 768 are NaN or Inf"):
        check_parity(outputs(), artifact, "int8")


@pytest.mark.fault(18)
def test_constant_answers_are_no_answers() -> None:
    with pytest.raises(ParityError, match="every value is 0"):
        check_parity(outputs(scale=1e-7), {"out0": np.zeros((4, 3, 8, 8), np.float32)}, "int8")


def test_names_and_shapes_have_to_match() -> None:
    with pytest.raises(ParityError, match="other"):
        check_parity(outputs(), {"other": outputs()["out0"]}, "int8")
    with pytest.raises(ParityError, match="shape"):
        check_parity(outputs(), {"out0": outputs()["out0"][:2]}, "int8")


@pytest.mark.parametrize(
    ("precision", "executed"),
    [
        ("float32", {"float32": 18}),
        ("float32", {"f32": 18, "bf16": 0}),
        ("bfloat16", {"bfloat16": 17, "float32": 1}),
        ("int8", {"int8": 15, "float32": 3}),
        ("int8", {"u8": 15, "FP32": 3}),
        ("float16", {"float16-weights": 18}),
        ("int8-dynamic", {"int8-dynamic": 15, "float32": 3}),
        ("float32", {"none": 0}),
    ],
)
def test_what_ran_is_what_was_asked_for(precision: str, executed: dict[str, int]) -> None:
    check_executed(precision, executed)


@pytest.mark.fault(29, simulated="what the runtime says")
@pytest.mark.parametrize(
    ("precision", "executed", "told"),
    [
        ("float32", {"bfloat16": 18}, "18 x bfloat16"),
        ("float32", {"float32": 17, "int8": 1}, "1 x int8"),
        ("bfloat16", {"float32": 18}, "18 x float32"),
        ("int8", {"float32": 18, "int8": 0}, "18 x float32"),
        ("int8", {"bf16": 18}, "18 x bfloat16"),
        ("int8", {"int8-dynamic": 18}, "18 x int8-dynamic"),
        ("float16", {"float32": 18}, "18 x float32"),
        ("float32", {"float16-weights": 18}, "18 x float16-weights"),
        ("float32", {}, "no compute layer"),
        ("float32", {"float32": 0}, "no compute layer"),
        ("int8", {"none": 0}, "no compute layer"),
    ],
)
def test_silent_fallback_is_caught(precision: str, executed: dict[str, int], told: str) -> None:
    with pytest.raises(MeasurementError, match=told):
        check_executed(precision, executed)


def test_the_worst_case_counts_and_a_broken_output_is_infinitely_far() -> None:
    wanted = {"out0": np.ones((1, 4), np.float32)}
    near, far = {"out0": wanted["out0"] * 1.01}, {"out0": wanted["out0"] * 1.2}
    assert worst_distance([(wanted, near), (wanted, far), (wanted, near)]) == pytest.approx(0.2, rel=1e-5)
    assert worst_distance([(wanted, wanted)]) == 0.0
    broken = {"out0": np.array([[1, 1, np.nan, 1]], np.float32)}
    assert worst_distance([(wanted, near), (wanted, broken)]) == float("inf")


Cases = dict[str, dict[str, Array]]


def golden(count: int = 4) -> Cases:
    return {f"knee-{number}": outputs(number) for number in range(count)}


def noisy(cases: Cases, **share: float) -> Cases:
    """The same outputs, with noise of the given relative L2 size in the named cases."""
    found = {}
    for name, values in cases.items():
        noise = np.random.default_rng(9).standard_normal(values["out0"].shape)
        size = share.get(name.replace("-", "_"), 0.0) * np.linalg.norm(values["out0"]) / np.linalg.norm(noise)
        found[name] = {"out0": (values["out0"] + noise * size).astype(np.float32)}
    return found


def test_the_worst_case_is_named_and_not_averaged_away() -> None:
    """One quiet case is wrong: over all cases together it hardly shows."""
    cases = golden()
    cases["knee-2"] = {"out0": cases["knee-2"]["out0"] * np.float32(0.01)}
    found = judge(cases, noisy(cases, knee_2=1.2), "int8")
    assert found.worst_case == "knee-2"
    assert found.figures["rel_l2"] < 0.02
    assert found.figures["worst_rel_l2"] == pytest.approx(1.2, rel=1e-2)
    assert found.figures["broken_share"] == 0.25
    assert found.missed
    assert "worst case knee-2: 1.2 from the float model" in found.text
    assert "25% of 4 cases are broken" in found.text


def test_beyond_the_tolerance_is_told_and_not_refused() -> None:
    sound = judge(golden(), noisy(golden(), knee_1=0.2), "int8")
    assert (sound.missed, sound.figures["limit"]) == (False, TOLERANCE["int8"])
    far = judge(golden(), noisy(golden(), knee_1=0.5), "int8")
    assert far.missed
    assert "beyond 0.25" in far.text
    assert "broken" not in far.text
    assert judge(golden(), noisy(golden(), knee_1=0.002), "float32").missed


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_error_as_large_as_the_signal_is_garbage(precision: str) -> None:
    everywhere = {f"knee_{number}": 1.0 for number in range(4)}
    with pytest.raises(ParityError, match=r"out0.*SQNR of 1 dB or more.*worst case knee-\d; 4 of 4 cases are broken"):
        judge(golden(), noisy(golden(), **everywhere), precision)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda values: values * np.nan, "in case knee-3: 768 of 768 are NaN or Inf"),
        (lambda values: values[:2], "in case knee-3"),
    ],
)
def test_what_is_no_answer_is_refused_with_its_case(spoil: Callable[[Array], Array], told: str) -> None:
    found = noisy(golden())
    found["knee-3"] = {"out0": spoil(found["knee-3"]["out0"])}
    with pytest.raises(ParityError, match=told):
        judge(golden(), found, "int8")
    with pytest.raises(ParityError, match="other"):
        judge(golden(), {case: {"other": values["out0"]} for case, values in golden().items()}, "int8")


def test_an_output_that_does_not_follow_its_input_is_garbage() -> None:
    stuck = {
        case: {"out0": np.full_like(values["out0"], number)} for number, (case, values) in enumerate(golden().items())
    }
    with pytest.raises(ParityError, match="4 of 4 cases are broken"):
        judge(golden(), stuck, "int8")
    one = noisy(golden())
    one["knee-0"] = stuck["knee-0"]
    assert judge(golden(), one, "int8").figures["broken_share"] == 0.25


def test_labels_may_differ_by_any_number() -> None:
    """The class 700 for the class 3 is one wrong answer of four, which accuracy counts."""
    wanted = {f"{n}": {"label": np.array([label])} for n, label in enumerate([3, 5, 1, 2])}
    found = {**wanted, "0": {"label": np.array([700])}}
    assert judge(wanted, found, "int8").missed
    assert judge(wanted, wanted, "int8").figures["worst_rel_l2"] == 0
    zeros = {case: {"label": np.array([0])} for case in wanted}
    assert judge(zeros, zeros, "int8").figures["sqnr_db"] == 400

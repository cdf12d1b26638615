"""What counts as the same answer, and as the precision that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.errors import MeasurementError, ParityError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.variant import PRECISIONS
from edgedeploy.reference.parity import TOLERANCE, check_executed, check_parity, compare, worst_distance


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

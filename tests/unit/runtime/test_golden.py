"""Golden vectors: what passes, what is another answer, and files that are no arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from product_kit import npy

from edgedeploy.runtime.bundle.arrays import read_array
from edgedeploy.runtime.bundle.golden import distance, prove
from edgedeploy.runtime.bundle.manifest import Golden, GoldenCase, ResultTolerance, Tolerance
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.faults import BundleError, RuntimeFault

X = np.arange(12, dtype=np.float32).reshape(3, 4)
MASK = (X > 5).astype(np.uint8)
CASES = (
    GoldenCase("a", None, {"x": "golden/x.npy"}, {"y": "golden/y.npy"}, None),
    GoldenCase("b", "golden/f.npy", {"x": "golden/x.npy"}, {"y": "golden/y.npy"}, "golden/r.npy"),
)
GOLDEN = Golden(CASES, {"y": Tolerance(1e-3, 0.05)}, ResultTolerance(0.1))
TREE = Tree({"golden/x.npy": npy(X), "golden/y.npy": npy(2 * X), "golden/f.npy": npy(X), "golden/r.npy": npy(MASK)})


def double(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"y": 2 * inputs["x"]}


def test_all_cases_are_run_before_a_model_is_ready() -> None:
    seen: list[str] = []

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        seen.append("run")
        return {"y": 2 * inputs["x"] * np.float32(1 + 1e-5)}

    def whole(frame: Any) -> Any:
        seen.append("whole")
        return (frame > 6).astype(np.uint8)

    proof = prove(GOLDEN, TREE, run, whole)
    assert seen == ["run", "run", "whole"]
    assert proof.cases == 2 and proof.relative_l2["y"] == pytest.approx(1e-5, rel=0.1)
    assert proof.share_differing == pytest.approx(1 / 12)


@pytest.mark.parametrize("lacking", ["frame", "result"])
def test_a_bundle_with_steps_on_one_side_is_run_whole_too(lacking: str) -> None:
    """Without steps for the input it is given the inputs, without steps for the output it gives the outputs."""
    case = replace(CASES[1], **{lacking: None})
    golden = Golden((case,), GOLDEN.tolerance, GOLDEN.result_tolerance)
    given: list[Any] = []

    def whole(frame: Any) -> Any:
        given.append(frame)
        return MASK if lacking == "frame" else {"y": 2 * X * np.float32(1 + 1e-4)}

    proof = prove(golden, TREE, double, whole)
    assert isinstance(given[0], dict) == (lacking == "frame")
    assert proof.relative_l2["y"] == pytest.approx(0 if lacking == "frame" else 1e-4, rel=0.1)
    with pytest.raises(BundleError, match="wrong_answer"):
        prove(golden, TREE, double, lambda frame: 1 - MASK if lacking == "frame" else {"y": X})


def raising(exc: Exception) -> Any:
    def run(inputs: Any) -> Any:
        raise exc

    return run


OFF = 2 * X
OFF[0, 1] += 0.06


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            lambda given: {"y": 2 * given["x"] * np.float32(1.01)},
            "'a': output 'y' is off by 0.01 of its norm, allowed 0.001",
        ),
        (lambda given: {"y": OFF * np.float32(1)}, "off by 0.06 at one place, allowed 0.05"),
        (lambda given: {"y": 2 * given["x"][:2]}, r"float32\[2, 4\], and float32\[3, 4\]"),
        (lambda given: {"y": 2.0 * given["x"].astype(np.float64)}, "float64"),
        (lambda given: {"z": given["x"]}, "no output 'y'"),
        (lambda given: {"y": np.where(given["x"] == 3, np.nan, 2 * given["x"]).astype(np.float32)}, "off by inf"),
        (raising(RuntimeFault("run_failed", "kernel")), "no answer .kernel"),
    ],
)
def test_another_answer_is_refused(run: Any, words: str) -> None:
    wide = Golden(CASES, {"y": Tolerance(1e-3 if "place" not in words else 1.0, 0.05)}, ResultTolerance(0.1))
    with pytest.raises(BundleError, match=words) as caught:
        prove(wide, TREE, run, lambda frame: MASK)
    assert caught.value.reason == "wrong_answer"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((X > 8).astype(np.uint8), "25.00% of the result differ, allowed 10.00%"),
        (MASK.astype(np.int64), "int64"),
        (MASK[:2], r"uint8\[2, 4\]"),
    ],
)
def test_another_result_is_refused(result: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        prove(GOLDEN, TREE, double, lambda frame: result)


def test_results_that_are_scores_may_differ_as_far_as_outputs_may() -> None:
    tree = Tree({**TREE.files, "golden/r.npy": npy(X)})
    none = Golden(CASES, GOLDEN.tolerance, ResultTolerance(0.0))
    assert prove(none, tree, double, lambda frame: frame * np.float32(1.0005)).share_differing == 0
    with pytest.raises(BundleError, match="of the result differ"):
        prove(none, tree, double, lambda frame: frame * np.float32(1.01))


def test_distances_of_numbers_that_are_none() -> None:
    nan = np.array([1, np.nan, np.inf], np.float32)
    assert distance(nan, nan) == (0.0, 0.0)
    assert distance(np.array([1, 0, np.inf]), nan)[0] == distance(-nan, nan)[0] == float("inf")
    assert distance(np.zeros(3), np.zeros(3)) == (0.0, 0.0)
    assert distance(np.ones(3), np.zeros(3)) == (float("inf"), 1.0)
    assert distance(np.array([3.0, 5.0]), np.array([3.0, 4.0])) == (0.2, 1.0)


@pytest.mark.parametrize("array", [X, np.asfortranarray(X), X.astype(">f4"), np.array(3), MASK.astype(bool), X[:0]])
def test_arrays_are_read_as_they_were_written(array: Any) -> None:
    found = read_array(npy(array), "a.npy")
    assert found.dtype == array.dtype.newbyteorder("=") and found.flags.writeable
    np.testing.assert_array_equal(found, array)


def with_header(text: str, data: bytes = b"") -> bytes:
    header = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy(X)[:-1],
        npy(X) + b"0",
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(4)),
        with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
        with_header("(" * 5000),
        with_header("__import__('os')"),
        pickled(),
    ],
)
def test_what_is_no_array_is_malformed(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"golden/x\.npy") as caught:
        read_array(data, "golden/x.npy")
    assert caught.value.reason == "malformed"

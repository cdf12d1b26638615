"""Golden vectors: what the artifact answered when it was measured. They are run again before a model is ready."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from edgedeploy.runtime.bundle.arrays import read_array
from edgedeploy.runtime.bundle.manifest import Golden, GoldenCase, Tolerance
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.faults import BundleError, RuntimeFault


@dataclass(frozen=True)
class Proof:
    """``cases`` have passed. ``relative_l2`` is the worst distance of each output, ``share_differing`` that of a result's
    elements; None in a bundle without a pipeline."""

    cases: int
    relative_l2: Mapping[str, float]
    share_differing: float | None


Arrays = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types
Run = Callable[[Arrays], Arrays]


def prove(golden: Golden, tree: Tree, run: Run, whole: Callable[[Any], Any], *, of_boxes: bool = False) -> Proof:
    """Run all cases. ``run`` takes a case's inputs to its outputs, ``whole`` a frame to the product's result: of a
    bundle without steps for the input the inputs stand for the frame, of one without steps for the output the outputs are
    the result. ``of_boxes``: the result is a table of boxes, of which as many differ as have no like.

    Raises :class:`BundleError` ``wrong_answer`` for the first that is farther from its golden vector than the manifest
    allows, or has none.
    """
    worst: dict[str, float] = {}
    differing: list[float] = []
    for case in golden.cases:
        inputs, expected = _arrays(tree, case.inputs), _arrays(tree, case.outputs)
        _check_outputs(case, _answer(case, run, inputs), expected, golden, worst)
        if case.frame is None and case.result is None:
            continue
        given = inputs if case.frame is None else read_array(tree.read(case.frame), case.frame)
        result = _answer(case, whole, given)
        if case.result is None:
            _check_outputs(case, result, expected, golden, worst)
        else:
            wanted = read_array(tree.read(case.result), case.result)
            differing.append((_check_boxes if of_boxes else _check_result)(case, result, wanted, golden))
    return Proof(len(golden.cases), worst, max(differing) if differing else None)


def _arrays(tree: Tree, names: Mapping[str, str]) -> dict[str, Any]:
    return {name: read_array(tree.read(file), file) for name, file in names.items()}


def _answer(case: GoldenCase, run: Callable[[Any], Any], given: Any) -> Any:
    try:
        return run(given)
    except (RuntimeFault, ValueError) as exc:
        raise _wrong(case, f"no answer ({exc})") from exc


def _check_outputs(
    case: GoldenCase, outputs: Arrays, expected: Arrays, golden: Golden, worst: dict[str, float]
) -> None:
    """Keeps the largest distance of each output in ``worst``."""
    for name, values in expected.items():
        found = _check_output(case, name, outputs.get(name), values, golden.tolerance[name])
        worst[name] = max(worst.get(name, 0.0), found)


def _check_output(case: GoldenCase, name: str, found: Any, expected: Any, tolerance: Tolerance) -> float:
    if found is None:
        raise _wrong(case, f"the session has no output {name!r}")
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise _wrong(case, f"output {name!r} is {_form(found)}, and {_form(expected)} was measured")
    relative_l2, max_abs = distance(found, expected)
    if not relative_l2 <= tolerance.relative_l2:
        raise _wrong(
            case, f"output {name!r} is off by {relative_l2:.2g} of its norm, allowed {tolerance.relative_l2:g}"
        )
    if tolerance.max_abs is not None and not max_abs <= tolerance.max_abs:
        raise _wrong(case, f"output {name!r} is off by {max_abs:.2g} at one place, allowed {tolerance.max_abs:g}")
    return relative_l2


def distance(found: Any, expected: Any) -> tuple[float, float]:
    """The Euclidean norm of the difference over that of ``expected``, and the largest single difference. Infinite where one
    is no finite number and the other is not the same."""
    import numpy as np

    found, expected = (np.asarray(values, np.float64) for values in (found, expected))
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("inf"), float("inf")
    difference = found[finite] - expected[finite]
    if not difference.any():
        return 0.0, 0.0
    norm = float(np.linalg.norm(expected[finite]))
    relative = float(np.linalg.norm(difference)) / norm if norm else float("inf")
    return relative, float(np.abs(difference).max())


def _check_result(case: GoldenCase, found: Any, expected: Any, golden: Golden) -> float:
    import numpy as np

    found = np.asarray(found)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise _wrong(case, f"the result is {_form(found)}, and {_form(expected)} was measured")
    differs = found != expected
    if expected.dtype.kind == "f":  # scores are equal as far as the outputs that they are made of
        nearness = max(item.relative_l2 for item in golden.tolerance.values()) * float(
            np.abs(expected).max(initial=0.0)
        )
        differs = ~(np.abs(found - expected) <= nearness)
    return _allowed(case, float(np.mean(differs)) if found.size else 0.0, golden)


def _check_boxes(case: GoldenCase, found: Any, expected: Any, golden: Golden) -> float:
    """Kernels that round otherwise put a box more or less beside the threshold, and exchange those of nearly one score."""
    import numpy as np

    from edgedeploy.runtime.pipeline.boxes import share_alone

    for table in (found, expected):
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != 6 or table.dtype.kind != "f":
            raise _wrong(case, "the result is no table of boxes (N, 6)")
    nearness = max(item.relative_l2 for item in golden.tolerance.values())
    return _allowed(case, share_alone(found, expected, nearness), golden)


def _allowed(case: GoldenCase, share: float, golden: Golden) -> float:
    allowed = golden.result_tolerance.share_differing if golden.result_tolerance is not None else 0.0
    if share > allowed:
        raise _wrong(case, f"{share:.2%} of the result differ, allowed {allowed:.2%}")
    return share


def _form(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _wrong(case: GoldenCase, found: str) -> BundleError:
    return BundleError("wrong_answer", f"golden case {case.id!r}: {found}")

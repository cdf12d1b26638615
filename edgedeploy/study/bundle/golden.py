"""Golden vectors: frames, inputs, outputs and results that a product holds its own runtime against before it starts.

The outputs are those of the artifact, run here by its own runtime; of an artifact that cannot run here, those of its ONNX
reference. How far a device may be from them follows from what was measured: twice the distance between artifact and
reference, here or on the board, whichever is larger, within the limits of the precision (``reference/parity.py``).
"""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from edgedeploy.errors import BundleError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import random_feed
from edgedeploy.records.measurement import Measurement
from edgedeploy.reference.parity import TOLERANCE, apart
from edgedeploy.runtime.bundle.manifest import Golden, GoldenCase, ResultTolerance, Tolerance
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.pipeline.boxes import share_alone
from edgedeploy.runtime.pipeline.resize import resized
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import Detections, ShiftDown, Steps, Window
from edgedeploy.runtime.sessions.clips import clip_outputs
from edgedeploy.runtime.sessions.open import Session, open_session
from edgedeploy.study.bundle.material import Material
from edgedeploy.study.cases import inputs_of

Source = Literal["synthetic", "cases"]
SOURCES: Final[tuple[Source, ...]] = ("synthetic", "cases")
CASES: Final = 3
CLIP_FRAMES: Final = 4
"""Of a golden clip, where a network carries state: enough that a wrong state shows."""

FLOOR: Final = 0.01
"""The least tolerance, as a share of the largest of the precision: two CPUs of one kind round otherwise."""

LEAST_SHARE: Final = 0.002
MOST_SHARE: Final = 0.05
"""Of a result's elements that may differ."""

LEAST_BOXES_SHARE: Final = 0.1
MOST_BOXES_SHARE: Final = 0.3
"""Of a result's boxes that may have no like: a detector finds few, and one beside the threshold is there or not."""

DULL: Final = "each result is one value all over, so that they say little of the steps after inference"

_COARSE: Final = 9


@dataclass(frozen=True)
class GoldenSet:
    """``golden`` for the manifest, ``files`` by name. ``told`` says where inputs and outputs come from, for people."""

    golden: Golden
    files: Mapping[str, bytes]
    told: str


@dataclass(frozen=True)
class _Case:
    id: str
    frame: Array | None
    inputs: Mapping[str, Array]


@dataclass(frozen=True)
class _Answered:
    outputs: Mapping[str, Array]
    reference: Mapping[str, Array]
    result: Array | None
    reference_result: Array | None


def golden_of(material: Material, source: Source) -> GoldenSet:
    """:data:`CASES` golden cases. Raises ``BundleError`` where neither the artifact nor its reference runs here."""
    cases = _cases(material, source)
    reference, by_reference = _reference_session(material)
    session, by = _artifact_session(material)
    own = session is not None
    answered = [_answer(material, case, session or reference, reference) for case in cases]
    files: dict[str, bytes] = {}
    listed = tuple(_kept(case, found, files) for case, found in zip(cases, answered, strict=True))
    tolerance = _tolerances(material, answered, own=own)
    golden = Golden(listed, tolerance, _result_tolerance(answered, material.steps, tolerance))
    words = {
        "synthetic": "synthetic inputs, drawn from a seed: no patient's data",
        "cases": "inputs of the study's calibration cases, because that was asked for: they may be patients' data",
    }
    outputs = f"outputs of the artifact by {by}" if own else f"outputs of the ONNX reference by {by_reference} ({by})"
    told = f"{words[source]}; {outputs}, on the host that made the bundle, not on the board"
    return GoldenSet(golden, files, f"{told}; {DULL}" if _is_dull(answered) else told)


# -- inputs


def _cases(material: Material, source: Source) -> list[_Case]:
    if source == "synthetic":
        return [_synthetic(material, seed) for seed in range(1, CASES + 1)]
    task = material.task
    found = [*task.cases("calibration"), *task.cases("train")][:CASES]
    if len(found) < CASES:
        raise BundleError("--golden cases", f"the task has {len(found)} calibration cases", "Use --golden synthetic")
    return [
        _Case(f"case-{number}", _frame(material, case), _shortened(material, inputs_of(task, case, material.arch)))
        for number, case in enumerate(found, start=1)
    ]


def _frame(material: Material, case: Any) -> Array | None:
    return np.asarray(material.task.frame(case)) if material.steps.input else None  # type: ignore[attr-defined]


def _synthetic(material: Material, seed: int) -> _Case:
    name = f"synthetic-{seed}"
    if not material.steps.input:
        return _Case(name, None, _random(material, seed))
    cases = material.task.cases("calibration") or material.task.cases("selection")
    frame = synthetic_frame(material.task.frame(cases[0]), seed, material.steps)  # type: ignore[attr-defined]
    inputs, _ = prepare(material.steps, frame)
    return _Case(name, frame, inputs)


def synthetic_frame(like: Array, seed: int, steps: Steps | None = None) -> Array:
    """A frame of the size and type of ``like``, and nothing else of it: smooth shades from black to white with speckle, as
    the window of ``steps`` has them."""
    rng = np.random.default_rng(seed)
    height, width = like.shape[:2]
    coarse = rng.uniform(0, 255, (_COARSE, _COARSE, *like.shape[2:])).astype(np.float32)
    smooth = resized(coarse, height, width, "bilinear")
    shades = np.clip(smooth * rng.uniform(0.7, 1.3, smooth.shape), 0, 255)
    if like.dtype == np.uint8:
        return np.asarray(np.rint(shades).astype(np.uint8))
    window = next((step for step in (steps or Steps()).input if isinstance(step, Window)), None)
    if window is None:
        return np.asarray(shades.astype(np.float32))
    bits = sum(step.bits for step in steps.input if isinstance(step, ShiftDown)) if steps else 0
    values = np.rint(window.low + shades / 255 * (window.high - window.low)) * 2**bits
    lowest, highest = (-(2**15), 2**15 - 1) if like.dtype == np.int16 else (0, 2**16 - 1)
    return np.asarray(np.clip(values, lowest, highest).astype(like.dtype))


def _random(material: Material, seed: int) -> dict[str, Array]:
    states, specs = material.reference.states, material.reference.inputs
    if not states:
        return random_feed(specs, seed)
    frames = [random_feed(specs, seed * CLIP_FRAMES + number) for number in range(CLIP_FRAMES)]
    return {
        spec.name: frames[0][spec.name] if spec.name in states else np.stack([frame[spec.name] for frame in frames])
        for spec in specs
    }


def _shortened(material: Material, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """A clip's first frames, with the state before them; other inputs as they are."""
    states = material.reference.states
    return {name: value[:CLIP_FRAMES] if states and name not in states else value for name, value in feeds.items()}


# -- outputs


def _artifact_session(material: Material) -> tuple[Session | None, str]:
    """The artifact's own session, and what it is; or why there is none."""
    artifact, target = material.artifact, material.artifact.target
    arch = material.measurement.board.arch
    if target == "tensorrt":
        return None, "its engine is built on the device"
    if arch != platform.machine():
        return None, f"it was measured on {arch}"
    try:
        session = open_session(target, material.artifact_folder, artifact.entry, dict(artifact.settings), 1)
    except RuntimeFault as exc:
        return None, f"{target} does not open it here: {exc.cause}"
    return session, f"{target} {session.version}"


def _reference_session(material: Material) -> tuple[Session, str]:
    path = material.reference.path
    try:
        session = open_session("onnxruntime", path.parent, path.name, {}, 1)
    except RuntimeFault as exc:
        raise BundleError("run the ONNX reference here", exc.message, "pip install 'edgedeploy[study]'") from None
    return session, f"onnxruntime {session.version}"


def _answer(material: Material, case: _Case, session: Session, reference: Session) -> _Answered:
    names, states = [spec.name for spec in material.reference.told], material.reference.states

    def run(opened: Session) -> dict[str, Array]:
        found = clip_outputs(opened.run, case.inputs, states) if states else opened.run(case.inputs)
        return {name: np.asarray(found[name]) for name in names}

    try:
        outputs, wanted = run(session), run(reference)
    except (RuntimeFault, KeyError) as exc:
        raise BundleError(
            f"golden case {case.id}", f"the artifact gives no answer ({exc})", "Measure it again"
        ) from None
    if not material.steps.output:
        return _Answered(outputs, wanted, None, None)
    placement = prepare(material.steps, case.frame)[1] if case.frame is not None else None
    return _Answered(
        outputs, wanted, finish(material.steps, outputs, placement), finish(material.steps, wanted, placement)
    )


def _is_dull(answered: Sequence[_Answered]) -> bool:
    """As of a network that finds nothing in made-up frames."""
    results = [found.result for found in answered if found.result is not None]
    return bool(results) and all(not result.size or _is_flat(result) for result in results)


def _is_flat(result: Array) -> bool:
    return result.size > 1 and bool((result == result.flat[0]).all())


# -- tolerances


def _tolerances(material: Material, answered: Sequence[_Answered], *, own: bool) -> dict[str, Tolerance]:
    largest = max(TOLERANCE[precision] for precision in material.measurement.variant.precisions)
    if not own:
        return {name: Tolerance(largest, None) for name in answered[0].outputs}
    board = material.measurement.parity.get("worst_rel_l2", material.measurement.parity.get("rel_l2", 0.0))

    def limit(name: str) -> float:
        here = [apart(found.reference[name], found.outputs[name])[0] or 0.0 for found in answered]
        return rounded(min(largest, max(FLOOR * largest, 2 * max(board, *here))))

    return {name: Tolerance(limit(name), None) for name in answered[0].outputs}


def tolerance_of(found: Measurement, states: Mapping[str, str]) -> dict[str, float]:
    """How far each output may be from answers of the same artifact (relative L2): twice what the board showed against the
    float model, within the limits of the precision. ``states`` are those of a network that carries state."""
    largest = max(TOLERANCE[precision] for precision in found.variant.precisions)
    seen = found.parity.get("worst_rel_l2", found.parity.get("rel_l2", 0.0))
    limit = rounded(min(largest, max(FLOOR * largest, 2 * seen)))
    return {spec.name: limit for spec in found.artifact.outputs if spec.name not in states.values()}


def _result_tolerance(
    answered: Sequence[_Answered], steps: Steps, tolerance: Mapping[str, Tolerance]
) -> ResultTolerance | None:
    if steps.output and isinstance(steps.output[0], Detections):
        nearness = max(item.relative_l2 for item in tolerance.values())
        alone = [share_alone(found.result, found.reference_result, nearness) for found in answered]
        return ResultTolerance(rounded(min(MOST_BOXES_SHARE, max(LEAST_BOXES_SHARE, 2 * max(alone)))))
    shares = [
        float(np.mean(found.result != found.reference_result)) if found.result.dtype.kind in "iub" else 0.0
        for found in answered
        if found.result is not None
    ]
    return ResultTolerance(rounded(min(MOST_SHARE, max(LEAST_SHARE, 2 * max(shares))))) if shares else None


def rounded(value: float) -> float:
    """Two significant digits: a tolerance of more would claim that it is known so well."""
    return float(f"{value:.2g}")


# -- files


def _kept(case: _Case, found: _Answered, files: dict[str, bytes]) -> GoldenCase:
    """The case for the manifest; its arrays go to ``files``."""

    def keep(kind: str, value: Array) -> str:
        name = f"golden/{case.id}.{kind}.npy"
        files[name] = npy(value)
        return name

    def all_of(kind: str, arrays: Mapping[str, Array]) -> dict[str, str]:
        return {name: keep(f"{kind}-{place}", value) for place, (name, value) in enumerate(sorted(arrays.items()))}

    return GoldenCase(
        id=case.id,
        frame=None if case.frame is None else keep("frame", case.frame),
        inputs=all_of("input", case.inputs),
        outputs=all_of("output", found.outputs),
        result=None if found.result is None else keep("result", found.result),
    )


def npy(value: Array) -> bytes:
    """The bytes of an ``.npy`` file of version 1.0, in C order, without pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()

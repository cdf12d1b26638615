"""Does an artifact compute what its reference computes, and in the precision it was asked for?

Tolerances apply to the relative L2 distance of each output over all golden inputs, ``|a - r| / |r|``. For float32 and
bfloat16 they are about ten times the largest distance of a sound build; for int8 they are wide enough for networks of a
few channels. Measured on seven UNets at 128 x 128 (12 and 16 channels; untrained, trained, pruned to a quarter; both
ways of upsampling; Zen 4 with VNNI and AVX512-BF16):

    float32 below 1e-6 | bfloat16 0.002 to 0.005 | int8 0.0003 to 0.009 (single images to 0.02)
    int8 of a sound classifier of 8 and 16 channels with two outputs (docs/examples/squares.py): 0.10 to 0.13
    broken on purpose: two classes swapped 0.6 to 1.7; one zero point off by 64: 0.02 to 0.7 (trained: 0.09 to 0.7)

So a mild fault in one layer can pass, and a sound build can be further away than a tolerance. In a study the task's own
metrics decide whether the accuracy suffices: :func:`judge` warns beyond a tolerance, by the worst case, and refuses only
what is no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgedeploy.errors import MeasurementError, ParityError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import AS_GIVEN, NARROW
from edgedeploy.runtime.sessions.counting import NOTHING

TOLERANCE: Final[Mapping[str, float]] = {
    "float32": 1e-3,
    "bfloat16": 5e-2,
    "float16": 1e-2,
    "int8": 0.25,
    "int8-dynamic": 0.25,
    "int8-weights": 0.25,
    "int4-weights": 0.25,
    AS_GIVEN: 0.25,
}
"""Largest relative L2 distance per output, by precision asked for."""

GARBAGE_DB: Final = 1.0
"""An output of which the error over all golden cases is as large as the signal: a ratio (SQNR) below this, 0.89 of it.
Two swapped classes, a wrong layout and noise lie around 0 dB; the worst sound int8 build of the figures above at 18 dB."""

ABSOLUTE_FLOOR: Final = 1e-6
"""Absolute differences up to this count as equal: float32 rounding around 1. Tiny outputs can differ by percents
between two sound runtimes, such as a sigmoid's 1e-7 of an object detector that sees nothing."""

_PRECISION_NAMES: Final[Mapping[str, str]] = {
    "f32": "float32",
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "fp16": "float16",
    "i8": "int8",
    "u8": "int8",
    "uint8": "int8",
}
"""Runtimes' names of a precision -> ours."""

_COUNTS_AS: Final[Mapping[str, tuple[str, ...]]] = {"float16": ("float16", "float16-weights")}
"""The executed precisions that count as a requested one. On a CPU without float16 arithmetic, LiteRT widens float16
weights once at load and computes in float32; the session reports this as ``float16-weights``."""


def compare(reference: Mapping[str, Array], artifact: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Distance of each output: ``rel_l2``, ``max_abs``, and ``sqnr_db`` (signal to quantization noise,
    20 log10(1 / rel_l2); 400 when outputs are equal, so that it stays finite).

    Raises ``ParityError`` where there is nothing to compare: names or shapes differ, a value is not finite, or an output is
    constant although its reference is not.
    """
    _require_names(reference, artifact)
    return {name: _distance(name, reference[name], artifact[name]) for name in reference}


def worst_distance(cases: Iterable[Sequence[Mapping[str, Array]]]) -> float:
    """The largest relative L2 distance of any output in any case; infinite when an output is broken. Each case is a
    pair: the reference's outputs and the artifact's."""
    worst = 0.0
    for exact, close in cases:
        try:
            found = compare(exact, close).values()
        except ParityError:
            return math.inf
        worst = max(worst, *(0.0 if within(item, 0.0) else item["rel_l2"] for item in found))
    return worst


def apart(reference: Array, artifact: Array) -> tuple[float | None, float]:
    """Relative L2 distance, None where the reference is zero all over, and the largest difference. Finite arrays of as
    many elements; the reference has the shape."""
    wanted = np.asarray(reference, np.float64)
    difference = np.asarray(artifact, np.float64).reshape(wanted.shape) - wanted
    signal = float(np.linalg.norm(wanted))
    relative = float(np.linalg.norm(difference)) / signal if signal else None
    return relative, float(np.max(np.abs(difference), initial=0.0))


def within(found: Mapping[str, float], limit: float) -> bool:
    """Whether one entry of :func:`compare` passes: its relative distance is within ``limit``, or its largest difference
    is within ``ABSOLUTE_FLOOR``."""
    return found["rel_l2"] <= limit or found["max_abs"] <= ABSOLUTE_FLOOR


def check_parity(reference: Mapping[str, Array], artifact: Mapping[str, Array], *precisions: str) -> dict[str, float]:
    """The worst entry of :func:`compare` over the outputs. ``precisions`` are the artifact's own and those of single
    layers; the loosest tolerance among them applies. Raises ``ParityError`` beyond it."""
    distances = compare(reference, artifact)
    limit = max(TOLERANCE[precision] for precision in precisions)
    precision = ", ".join(precisions)
    for name, found in distances.items():
        if not within(found, limit):
            raise ParityError(
                f"output {name!r} within {limit:g} of the reference ({precision}, relative L2)",
                f"{found['rel_l2']:.3g} (largest difference {found['max_abs']:.3g}, SQNR {found['sqnr_db']:.1f} dB)",
                "Calibrate on inputs like those of the product, or choose a wider precision",
            )
    return {
        "rel_l2": max(found["rel_l2"] for found in distances.values()),
        "max_abs": max(found["max_abs"] for found in distances.values()),
        "sqnr_db": min(found["sqnr_db"] for found in distances.values()),
    }


@dataclass(frozen=True)
class Judged:
    """Golden cases against their reference. ``figures`` (all numbers finite):

    - ``rel_l2``, ``max_abs``, ``sqnr_db``: of the worst output over all cases together, as :func:`check_parity`;
    - ``worst_rel_l2``, ``worst_sqnr_db``: of the worst output of the worst case, ``worst_case`` by its id;
    - ``broken_share``: the share of cases with an output below :data:`GARBAGE_DB`, or constant where its reference is not;
    - ``cases``; and ``limit``, the tolerance of the precision.
    """

    figures: Mapping[str, float]
    worst_case: str

    @property
    def missed(self) -> bool:
        """Whether the worst case is further from the reference than the tolerance."""
        return self.figures.get("worst_rel_l2", 0.0) > self.figures.get("limit", math.inf)

    @property
    def text(self) -> str:
        """What is found, in one line."""
        figures = self.figures
        share = f"; {figures['broken_share']:.0%} of {figures['cases']:.0f} cases are broken"
        return (
            f"worst case {self.worst_case}: {figures['worst_rel_l2']:.2g} from the float model (relative L2, "
            f"{figures['worst_sqnr_db']:.1f} dB), beyond {figures['limit']:g}{share if figures['broken_share'] else ''}"
        )


UNJUDGED: Final = Judged({}, "")
"""Nothing was compared: on made-up inputs a distance says nothing."""


def judge(
    reference: Mapping[str, Mapping[str, Array]], artifact: Mapping[str, Mapping[str, Array]], *precisions: str
) -> Judged:
    """Compare the outputs of each golden case, by id, with the reference's. Raises ``ParityError`` for what is no answer:
    other names or shapes, NaN or Inf, an output that is constant over all cases or in each of them although its
    reference is not, or floating-point outputs below :data:`GARBAGE_DB` over all cases together."""
    found = {case: _of_case(case, reference[case], artifact[case]) for case in reference}
    together = compare(
        *({name: _stacked(side, name) for name in next(iter(side.values()))} for side in (reference, artifact))
    )
    worst = max(found, key=lambda case: (found[case].rel_l2, case))
    broken = [case for case, distance in found.items() if distance.broken]
    for name, distance in together.items():
        if len(broken) == len(found) or (_is_float(reference, name) and _below(distance)):
            text = f"{distance['sqnr_db']:.1f} dB (relative L2 {distance['rel_l2']:.3g}); worst case {worst}"
            raise ParityError(
                f"expected output {name!r} to resemble its reference's (SQNR of {GARBAGE_DB:g} dB or more)",
                f"{text}; {len(broken)} of {len(found)} cases are broken",
                "Do not ship this artifact: look at its layers with `edgedeploy debug`",
            )
    figures = {
        "rel_l2": _finite(max(distance["rel_l2"] for distance in together.values())),
        "max_abs": max(distance["max_abs"] for distance in together.values()),
        "sqnr_db": min(distance["sqnr_db"] for distance in together.values()),
        "worst_rel_l2": _finite(found[worst].rel_l2),
        "worst_sqnr_db": min(distance.sqnr_db for distance in found.values()),
        "broken_share": len(broken) / len(found),
        "cases": float(len(found)),
        "limit": max(TOLERANCE[precision] for precision in precisions),
    }
    return Judged(figures, worst)


def require_finite(outputs: Mapping[str, Array], case: str) -> None:
    """Raises ``ParityError`` for NaN or Inf in a case of which the reference's outputs are not known."""
    for name, values in outputs.items():
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            text = f"{int(np.count_nonzero(~np.isfinite(values)))} of {values.size} are NaN or Inf"
            raise ParityError(f"finite values in output {name!r} in case {case}", text, "Do not ship this artifact")


@dataclass(frozen=True)
class _Distance:
    rel_l2: float
    sqnr_db: float
    broken: bool


def _of_case(case: str, reference: Mapping[str, Array], artifact: Mapping[str, Array]) -> _Distance:
    _require_names(reference, artifact)
    try:
        found = {name: _distance(name, reference[name], artifact[name], constant=True) for name in reference}
    except ParityError as exc:
        raise ParityError(f"{exc.asked} in case {case}", exc.found, exc.remedy) from None
    judged = [item for item in found.values() if item["max_abs"] > ABSOLUTE_FLOOR]
    broken = any(
        np.issubdtype(reference[name].dtype, np.floating)
        and (_below(found[name]) or _stuck(reference[name], artifact[name]))
        for name in reference
    )
    return _Distance(
        max((item["rel_l2"] for item in judged), default=0.0), min(item["sqnr_db"] for item in found.values()), broken
    )


def _stacked(side: Mapping[str, Mapping[str, Array]], name: str) -> Array:
    return np.stack([np.asarray(outputs[name]) for outputs in side.values()])


def _is_float(side: Mapping[str, Mapping[str, Array]], name: str) -> bool:
    return bool(np.issubdtype(next(iter(side.values()))[name].dtype, np.floating))


def _below(found: Mapping[str, float]) -> bool:
    return found["sqnr_db"] < GARBAGE_DB and found["max_abs"] > ABSOLUTE_FLOOR


def _finite(value: float) -> float:
    return min(value, 1e9)  # a reference of zeros has no relative distance


def check_executed(precision: str, executed: Mapping[str, int], planned: Sequence[str] = ()) -> None:
    """Compare the precisions that ran with the one that was asked for. ``executed`` counts compute layers by the
    precision that ran; ``planned`` are the precisions that a plan gave to single layers.

    Raises ``MeasurementError`` in two cases: float32 was asked for and a narrower layer ran, or a narrower precision
    was asked for and no layer ran in it (the runtime fell back). Some layers may stay wide in the second case: a head
    that is not quantized, an operator without a narrow kernel.
    """
    ran: dict[str, int] = {}
    for name, count in executed.items():
        known = _PRECISION_NAMES.get(name.lower(), name.lower())
        ran[known] = ran.get(known, 0) + count
    text = ", ".join(f"{count} x {name}" for name, count in sorted(ran.items()) if count) or "no compute layer at all"
    if precision == AS_GIVEN and ran:
        return  # the file itself says what computes in what
    if precision == "float32" and set(ran) == {NOTHING} and not planned:
        return  # a network that only looks up or moves values computes in no precision
    if not any(ran.values()):
        raise MeasurementError(f"layers in {precision}", text, "The runtime has to say what it ran")
    expected = {"float32", *(known for name in planned for known in _COUNTS_AS.get(name, (name,)))}
    if precision == "float32" and any(count for name, count in ran.items() if name not in expected):
        raise MeasurementError("every layer in float32", text, "Set the runtime's precision hint to float32")
    for wanted in (precision, *(name for name in planned if name in NARROW)):
        if not any(ran.get(name) for name in _COUNTS_AS.get(wanted, (wanted,))):
            raise MeasurementError(f"layers in {wanted}", text, f"This board's runtime or CPU has no {wanted} kernels")


def _require_names(reference: Mapping[str, Array], artifact: Mapping[str, Array]) -> None:
    if set(reference) != set(artifact):
        raise ParityError(f"outputs {sorted(reference)}", f"the artifact has {sorted(artifact)}", "Build it again")


def _stuck(reference: Array, artifact: Array) -> bool:
    """Whether an output has one value although its reference has several."""
    if artifact.size < 2:
        return False
    return bool(np.all(artifact == artifact.flat[0])) and not bool(np.all(reference == reference.flat[0]))


def _distance(name: str, reference: Array, artifact: Array, *, constant: bool = False) -> dict[str, float]:
    """``constant`` lets an output pass that is constant: one case alone may have such an answer."""
    if reference.shape != artifact.shape:
        raise ParityError(
            f"shape {reference.shape} of output {name!r}", f"{artifact.shape}", "Build the artifact again"
        )
    wanted = reference.astype(np.float64)
    found = artifact.astype(np.float64)
    if not np.isfinite(found).all():
        bad = int(np.count_nonzero(~np.isfinite(found)))
        text = f"{bad} of {found.size} are NaN or Inf"
        raise ParityError(f"finite values in output {name!r}", text, "Do not ship this artifact")
    if not constant and _stuck(wanted, found):
        text = f"every value is {found.flat[0]:g}"
        raise ParityError(f"output {name!r} that follows its input", text, "Do not ship this artifact")
    distance, largest = apart(wanted, found)
    relative = distance if distance is not None else math.inf if largest else 0.0
    return {
        "rel_l2": relative,
        "max_abs": largest,
        "sqnr_db": -20.0 * math.log10(max(relative, 1e-20)) if math.isfinite(relative) else -400.0,
    }

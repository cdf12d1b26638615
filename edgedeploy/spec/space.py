"""The keys of a study's search space, and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgedeploy.records.variant import ALLOCATIONS, Scalar
from edgedeploy.spec.source import SpecSource

MAX_CHOICES = 64

SPACE_KEYS: Final[Mapping[str, str]] = {
    "precision": "Numeric precisions: float32, bfloat16, float16, int8, int8-dynamic, int4-weights; a target that lacks one "
    "builds float32.",
    "width": "Shares of channels that structured pruning keeps, above 0 and at most 1. For tasks in PyTorch.",
    "allocation": 'How a width is spread over the layers: "uniform" (the same share of channels in each), or by the loss '
    'that channels are worth, for the multiplications ("compute") or the weights ("bytes") of the uniform width.',
    "threads": "Threads of a session; the board's cores, 4 at most, when left out.",
    "plan": 'Names of precision plans of [plans], and "none".',
    "calibration": "How int8 chooses its ranges: minmax, mean-minmax, percentile, entropy, mse, as far as a target has it.",
    "calibration_cases": "How many calibration cases int8 sees; all of them when left out.",
    "training": 'Where int8 comes from: "ptq" (calibration) or "qat" (training with quantizers).',
    "power_mode": "The board's power modes: governors, or a Jetson's nvpmodel.",
    "weight_bits": "Bits of int8 weights, 8 or 7; the board chooses when left out.",
}
"""Parameters of ``[space]`` that edgedeploy itself understands; every other one is a keyword of the task's ``build``."""


def expand(key: str, values: Any) -> tuple[Any, ...]:
    """A list as it is, or ``{low, high, step}`` written out."""
    if isinstance(values, dict):
        if set(values) != {"low", "high", "step"}:
            raise ValueError(
                f"{key}: a range has exactly low, high and step, but got {', '.join(map(str, values)) or 'nothing'}"
            )
        low, high, step = values["low"], values["high"], values["step"]
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in (low, high, step)):
            raise ValueError(f"{key}: low, high and step must be numbers")
        if not (low <= high and step > 0):
            raise ValueError(
                f"{key}: `low <= high` and `step > 0` must hold, but got (low={low}, high={high}, step={step})"
            )
        values = [low + i * step for i in range(int(min(MAX_CHOICES + 1, (high - low) / step + 1.000001)))]
    if not isinstance(values, list):
        raise ValueError(f"{key}: expected a list of values, or a range {{ low, high, step }}, but got {values!r}")
    if not values:
        raise ValueError(f"{key}: the list of values is empty, so the space is empty")
    if len(values) > MAX_CHOICES:
        raise ValueError(f"{key}: at most {MAX_CHOICES} values, but got {len(values)} or more")
    nested = [value for value in values if isinstance(value, (dict, list))]
    if nested:
        raise ValueError(f"{key}: expected single values, but got {nested[0]!r} among them")
    if len({(type(value), value) for value in values}) != len(values):
        raise ValueError(f"{key}: a value stands twice in {values!r}")
    return tuple(values)


def subset(source: SpecSource, key: str, values: Sequence[Scalar], legal: Sequence[Scalar], text: str) -> None:
    for value in values:
        if not any(type(value) is type(other) and value == other for other in legal):
            found = f"{value!r} is not among the legal values"
            raise source.error(key, found, f"{text[0].upper()}{text[1:]}: {', '.join(map(repr, legal))}")


def check_allocations(source: SpecSource, space: Mapping[str, Sequence[Scalar]]) -> None:
    subset(source, "space.allocation", space.get("allocation", ()), ALLOCATIONS, "allocations are")

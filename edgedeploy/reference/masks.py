"""Where a network masks the scores of a softmax, and what has to stay float so that int8 keeps what is not masked.

A mask adds -inf, or a number as large as -1e9, to the scores of what may not be seen. The range of their sum then begins
there: 256 steps of it leave one for all scores that count, and with -inf there is no step at all. Sum and softmax cost an
operation an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.reference.constants import Constants

LARGEST_SCORE: Final = 1000.0
"""What is larger is no score: beside another score, exp(-104) is 0 in float32."""

_SOFTMAX: Final = ("Softmax", "LogSoftmax")
_BETWEEN: Final = (
    *("Add", "Sub", "Mul", "Div", "Where", "Min", "Max", "Clip"),
    *("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice", "Gather"),
)
"""Operators between scores, masks and softmax; a product with weights or of two tensors ends the way back."""


@dataclass(frozen=True)
class ScoreStep:
    """A node of any toolchain's graph: its inputs without constants and its outputs by tensor name. ``softmax``: it is one;
    ``between``: it may stand between scores and softmax; ``masks``: it reads a constant that is no score."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    softmax: bool
    between: bool
    masks: bool


def masking(steps: Sequence[ScoreStep]) -> list[str]:
    """The steps that mask scores: each softmax that reads a mask, and what lies between it and the products before it."""
    producers = {name: step for step in steps for name in step.outputs}
    found: dict[str, None] = {}
    for step in steps:
        if step.softmax:
            way = _way_back(step, producers)
            if any(before.masks for before in way):
                found |= {before.name: None for before in (*way, step)}
    return list(found)


def _way_back(softmax: ScoreStep, producers: dict[str, ScoreStep]) -> list[ScoreStep]:
    found: dict[str, ScoreStep] = {}
    waiting = list(softmax.inputs)
    while waiting:
        step = producers.get(waiting.pop())
        if step is not None and step.between and step.name not in found:
            found[step.name] = step
            waiting += step.inputs
    return list(found.values())


def is_mask(value: Any) -> bool:
    """Whether a constant of floats holds what is no score."""
    if not np.issubdtype(value.dtype, np.floating) or not value.size:
        return False
    return not bool((np.abs(value) <= LARGEST_SCORE).all())  # NaN and infinities are not


def masked(model: Any) -> list[str]:
    """:func:`masking` of an ONNX model whose nodes have names."""
    constants = Constants(model)

    def masks(node: Any) -> bool:
        values = (constants.get(name) for name in node.input if name)
        return any(value is not None and is_mask(value) for value in values)

    return masking(
        [
            ScoreStep(
                node.name,
                tuple(name for name in node.input if name),
                tuple(name for name in node.output if name),
                node.op_type in _SOFTMAX,
                between := node.op_type in _BETWEEN,
                between and masks(node),
            )
            for node in model.graph.node
            if not all(name in constants for name in node.output if name)
        ]
    )

"""How much of a model a build of weights alone has narrowed: toolchains leave layers as they are and say nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.records.precision import WEIGHTS_ONLY, Assignment
from edgedeploy.reference.constants import Constants

LEAST_SHARE: Final = 0.9
"""Of the numbers in linear weights that a build has to narrow, at least, of those that the plan leaves it."""
LINEAR: Final = ("MatMul", "Gemm")
SHOWN: Final = 3
"""Layers that a refusal names."""


def check_share(precision: str, source: Any, assignment: Assignment, narrowed: Collection[str]) -> None:
    """Raises ``Unsupported`` with the share and the largest layers that stayed, where a model of a precision of
    ``WEIGHTS_ONLY`` has more than a tenth of its linear weights as they were.

    ``source`` is the ONNX reference, ``narrowed`` its layers that are narrow in what was built. Layers to which a plan
    gives another precision do not count.
    """
    if precision not in WEIGHTS_ONLY:
        return
    asked = {
        name: size
        for name, size in linear_weights(source, assignment).items()
        if assignment.precisions[name] == precision
    }
    left = {name: size for name, size in asked.items() if name not in narrowed}
    share = 1 - sum(left.values()) / max(1, sum(asked.values()))
    if share >= LEAST_SHARE:
        return
    largest = sorted(left, key=lambda name: (-left[name], name))[:SHOWN]
    raise Unsupported(
        f"{precision} for {LEAST_SHARE:.0%} of the linear weights",
        f"{share:.0%} were converted; the largest of {len(left)} that stayed: {', '.join(largest)}",
        "Give these layers float32 by a plan where that is what you want, or export their weights as 2-D float32 constants",
    )


def linear_weights(source: Any, assignment: Assignment) -> dict[str, int]:
    """Numbers in the constant weights of each MatMul and Gemm of ``source``, by name. Weights that two layers share count
    for each."""
    constants = Constants(source)
    found = {}
    for node in source.graph.node:
        if node.op_type in LINEAR and node.name in assignment.weighted:
            found[node.name] = constants.numbers(node.input[1])
    return found

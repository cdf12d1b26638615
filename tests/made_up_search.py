"""A made-up landscape for tests of the search: outcomes by formula, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgedeploy.errors import Quarantined
from edgedeploy.lab.crew import Crew, Post
from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Outcome, Scored
from edgedeploy.search.space import Space

SPACE = Space(
    targets=("onnxruntime", "openvino"),
    parameters={
        "width": (1.0, 0.75, 0.5, 0.25),
        "resolution": (128, 96, 64),
        "precision": ("float32", "bfloat16", "int8"),
    },
    arch_defaults={"resolution": 128},
    target_precisions={"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")},
    default_threads=2,
)
SMALL = replace(SPACE, parameters={"width": (1.0, 0.5), "precision": ("float32", "bfloat16", "int8")})


def one_board(evaluate: Callable[[Variant], Outcome]) -> Crew:
    """A SIMULATED board that only evaluates."""
    return Crew([Post("the board", evaluate, lambda cause: Quarantined("the board", cause))])


def landscape(variant: Variant) -> Scored:
    resolution = int(variant.arch_kwargs["resolution"])
    cost = variant.width**2 * resolution**2 * (0.3 if variant.precision == "int8" else 1.0)
    return Scored((0.8 - 0.1 * (1 - variant.width) - 0.05 * (1 - resolution / 128), cost), {"cost": cost - 12_000})

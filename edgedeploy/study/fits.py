"""Whether a variant's weights alone pass the memory that a board gives it: told before it is trained or built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.compress.sizes import least_weights
from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.task import ReadyMade, Task
from edgedeploy.records.units import human
from edgedeploy.records.variant import Scalar, Variant

IN_OWN_MEMORY: Final = frozenset({"onnxruntime", "openvino", "litert"})
"""Targets whose sessions here hold the weights in the memory of their process, not of a device."""

LEAST_BITS: Final[Mapping[str, int]] = {"int8": 8, "int8-dynamic": 8, "int8-weights": 8, "int4-weights": 4}
LEAST_FLOAT_BITS: Final = 16
"""OpenVINO keeps float32 weights as float16 where nothing is lost."""

AT_MOST: Final = 2.0
"""Weights of a pruned network over what the square of its width lets expect, at most: the first and last layers stay."""


class Fits:
    """Holds variants of one task against ``limit_bytes``; without a limit everything fits.

    The bound is certain and not close: weights of convolutions and linear layers alone, each in the fewest bits that its
    variant's precisions can keep it in. A shared width of the task's own network, targets with a process of their own, and
    models that are built here have one; everything else is left to the board.
    """

    def __init__(self, task: Task, limit_bytes: int | None) -> None:
        self._task = task
        self._limit_bytes = limit_bytes
        self._known: dict[tuple[tuple[tuple[str, Scalar], ...], float], int | None] = {}

    def require(self, variant: Variant) -> None:
        """Raises ``Unsupported`` for a variant whose weights have no room."""
        if self._limit_bytes is None or not self._is_told(variant):
            return
        bits = min(LEAST_BITS.get(name, LEAST_FLOAT_BITS) for name in variant.precisions)
        weights = self._weights(variant, most=self._limit_bytes * 8 // bits)
        if weights is not None and weights * bits > self._limit_bytes * 8:
            raise Unsupported(
                f"{variant.label} within {human(self._limit_bytes, 'bytes')} (the board's `memory`)",
                f"its {weights:,} weights in convolutions and linear layers take "
                f"{human(weights * bits / 8, 'bytes')} or more",
                "Search a narrower width or precision, or a smaller network",
            )

    def _is_told(self, variant: Variant) -> bool:
        uniform = not (variant.allocation or variant.elastic or variant.shrink)
        return variant.target in IN_OWN_MEMORY and uniform and not isinstance(self._task, ReadyMade)

    def _weights(self, variant: Variant, most: int) -> int | None:
        """The variant's weights; None where they are not known, or are ``most`` at most by far, which saves the pruning."""
        whole = self._least(variant.arch, 1.0)
        if whole is None or variant.width >= 1.0 or AT_MOST * variant.width**2 * whole <= most:
            return whole if variant.width >= 1.0 else None
        return self._least(variant.arch, variant.width)

    def _least(self, arch: tuple[tuple[str, Scalar], ...], width: float) -> int | None:
        if (arch, width) not in self._known:
            self._known[arch, width] = least_weights(self._task, dict(arch), width)
        return self._known[arch, width]

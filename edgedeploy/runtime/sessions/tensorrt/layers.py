"""Kind and precision of an engine's layers, from ``--exportLayerInfo`` or the engine inspector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

COMPUTE = ("Convolution", "Deconvolution", "FullyConnected", "MatrixMultiply", "Gemm", "gemm")
"""``ParameterType`` (or, if missing, ``LayerType``) of the layers that count as compute layers."""

_PRECISIONS = {
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "int8": "int8",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "fp8": "float8",
}
_FORMAT = re.compile(r"\b(FP32|FP16|Int8|BF16|FP8|Float|Half|BFloat16)\b", re.IGNORECASE)


def kind_of(layer: Mapping[str, Any]) -> str:
    return str(layer.get("ParameterType") or layer.get("LayerType", ""))


def precision_of(layer: Mapping[str, Any]) -> str | None:
    """A layer's precision: that of its weights, or of its first input's format; None if neither is given."""
    weights = layer.get("Weights")
    name = str(weights.get("Type", "")).lower() if isinstance(weights, Mapping) else ""
    if not name and layer.get("Inputs"):
        first = layer["Inputs"][0]
        match = _FORMAT.search(str(first.get("Format/Datatype") or first.get("Datatype") or ""))
        name = match.group(1).lower() if match else ""
    return _PRECISIONS.get(name)


def count_compute(layers: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    """Compute layers, given as (kind, precision), by the precision that the engine has for them."""
    counts: dict[str, int] = {}
    for kind, precision in layers:
        if kind in COMPUTE and precision is not None:
            counts[precision] = counts.get(precision, 0) + 1
    return counts

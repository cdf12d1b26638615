"""The table of operators of PyTorch's ONNX exporter, made once a process: the exporter makes the same anew at each export,
half of the time that it takes for a small network."""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

PLACE = "torch.onnx._internal.exporter._registration"


def keep() -> None:
    """Where the exporter is imported: each export gets a copy, which it may add to."""
    if (module := sys.modules.get(PLACE)) is None or getattr(module, "kept", False):
        return
    registry: Any = module.ONNXRegistry
    made = functools.cache(registry.from_torchlib)

    def copied(*args: int, **named: int) -> Any:
        table = copy.copy(made(*args, **named))
        table.functions = {target: [*metas] for target, metas in table.functions.items()}
        return table

    registry.from_torchlib = staticmethod(copied)
    module.kept = True  # type: ignore[attr-defined]

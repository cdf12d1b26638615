"""The table of operators of PyTorch's ONNX exporter, made once a process: the exporter makes the same anew at each export,
half of the time that it takes for a small network. PyTorch also lists its composite operators twice at each, and looks for
new ones 27 times in each list: a fifth of what is left."""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

PLACE = "torch.onnx._internal.exporter._registration"
LISTS = "torch._export.utils"
READERS = (LISTS, "torch.export.exported_program", "torch.export.decomp_utils")
"""Who has the function that lists under its own name."""


def keep() -> None:
    """Where the exporter is imported: each export gets a copy, which it may add to."""
    if (module := sys.modules.get(PLACE)) is None or getattr(module, "kept", False):
        return
    if not all(name in sys.modules for name in READERS):
        return
    registry: Any = module.ONNXRegistry
    made = functools.cache(registry.from_torchlib)

    def copied(*args: int, **named: int) -> Any:
        table = copy.copy(made(*args, **named))
        table.functions = {target: [*metas] for target, metas in table.functions.items()}
        return table

    registry.from_torchlib = staticmethod(copied)
    _look_once_a_list(sys.modules[LISTS])
    module.kept = True  # type: ignore[attr-defined]


def _look_once_a_list(module: Any) -> None:
    """New operators are looked for at the first namespace of a list, and not again at each further one."""
    list_all, look = module._collect_all_valid_cia_ops, module._materialize_cpp_cia_ops
    looked: list[bool] = []

    def listed() -> Any:
        looked[:] = [False]
        try:
            return list_all()
        finally:
            looked.clear()

    def looked_once() -> None:
        if looked != [True]:
            look()
        if looked:
            looked[0] = True

    module._materialize_cpp_cia_ops = looked_once
    for name in READERS:
        sys.modules[name]._collect_all_valid_cia_ops = listed  # type: ignore[attr-defined]

"""What PyTorch's exporters make anew at each export, made once a process.

The table of operators of the ONNX exporter is half of the time that a small network takes. PyTorch lists its composite
operators twice at each export, and looks for new ones 27 times in each list: a fifth of what is left. It also annotates
11,000 functions: a seventh of the rest.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from typing import Any

TABLE = "torch.onnx._internal.exporter._registration"
OPERATORS = "torch._ops"
LISTS = "torch._export.utils"
READERS = (LISTS, "torch.export.exported_program", "torch.export.decomp_utils")
"""Who has the function that lists under its own name."""


def keep() -> None:
    """Where the exporters are imported."""
    if (module := sys.modules.get(TABLE)) is not None and not hasattr(module, "kept"):
        _keep_table(module)
        module.kept = True  # type: ignore[attr-defined]
    if all(name in sys.modules for name in READERS) and not hasattr(sys.modules[LISTS], "kept"):
        _look_once_a_list(sys.modules[LISTS])
        sys.modules[OPERATORS].Callable = _Annotation()  # type: ignore[attr-defined]
        sys.modules[LISTS].kept = True  # type: ignore[attr-defined]


def _keep_table(module: Any) -> None:
    """Each export gets a copy, which it may add to."""
    made = functools.cache(module.ONNXRegistry.from_torchlib)

    def copied(*args: int, **named: int) -> Any:
        table = copy.copy(made(*args, **named))
        table.functions = {target: [*metas] for target, metas in table.functions.items()}
        return table

    module.ONNXRegistry.from_torchlib = staticmethod(copied)


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


class _Annotation:
    """``collections.abc.Callable`` for a module that makes an alias of it for each function that it wraps."""

    def __getitem__(self, types: object) -> object:
        return Callable

    def __instancecheck__(self, item: object) -> bool:
        return callable(item)

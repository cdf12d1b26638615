"""Copies of a user's torch model, for whatever its modules hold: it is pruned, exported and trained on a copy.

``copy.deepcopy`` refuses tensors that were computed (a kept feature map, the weight of ``weight_norm``), locks, files,
generators and Python modules. A kept tensor is copied as plain numbers; an object that Python cannot copy is shared by
the model and its copy, which is right for locks and libraries. Submodules are never shared: a copy would train them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from edgedeploy.errors import Unsupported

_HELD_BY_TORCH: Final = ("_parameters", "_buffers", "_modules")
_DEEPEST: Final = 4
"""How far inside an attribute's own containers and objects we look for what cannot be copied."""


def copied(model: Any) -> Any:
    """A copy of a ``torch.nn.Module`` that shares no parameter, buffer or submodule with it.

    Raises ``Unsupported`` naming the submodule or attribute that cannot be copied.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about its own graphs
        try:
            return copy.deepcopy(model)
        except Exception:  # whatever the objects of a foreign module raise; found again below, by name
            memo = _special(model)
        try:
            return copy.deepcopy(model, memo)
        except Exception as exc:
            found = f"{_culprit(model, memo)}: {next(iter(str(exc).splitlines()), type(exc).__name__)}"[:400]
            remedy = "Let build() make it without that, or give the module a __deepcopy__"
            raise Unsupported(f"a copy of the model {type(model).__name__}", found, remedy) from exc


def baked(model: Any) -> Any:
    """``model`` with its weight norms, spectral norms and other parametrizations replaced by the weights they compute in
    evaluation mode, in place: exporters and pruning want weights that are parameters."""
    from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    model.eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            module.__class__ = _class_of_its_own(module)
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
    return model


def _class_of_its_own(module: Any) -> Any:
    """A parametrized module and its copies share one class, whose properties are the parametrized tensors: removing them
    from the copy would take them from the original."""
    kind = type(module)
    members = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, kind.__bases__, members)


def _special(model: Any) -> dict[int, Any]:
    """What :func:`copy.deepcopy` is to answer for the objects it refuses, by their ``id``."""
    kept = {id(module): module for module in model.modules()}
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in module._buffers.values():
            if value is not None and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
        for name, value in vars(module).items():
            if name not in _HELD_BY_TORCH:
                memo.update(_refused(value, kept, _DEEPEST))
    return memo


def _refused(value: Any, kept: Mapping[int, Any], depth: int) -> dict[int, Any]:
    import torch
    from torch import nn

    if isinstance(value, nn.Module) or _copies(value, kept):
        return {}
    if isinstance(value, torch.Tensor):
        return {id(value): value.detach().clone()}
    memo: dict[int, Any] = {}
    inside = list(_inside(value)) if depth else []
    for item in inside:
        memo.update(_refused(item, kept, depth - 1))
    if memo and _copies(value, {**kept, **memo}):
        return memo
    return memo if _holds_modules(inside) else {id(value): value}


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType):
        yield from vars(value).values()


def _holds_modules(values: list[Any]) -> bool:
    import torch

    return any(isinstance(value, torch.nn.Module | torch.nn.Parameter) for value in values)


def _copies(value: Any, memo: Mapping[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:  # see copied
        return False
    return True


def _culprit(model: Any, memo: Mapping[int, Any]) -> str:
    """The innermost submodule, and its attribute where it is one, that cannot be copied."""
    kept = {**memo, **{id(module): module for module in model.modules()}}
    for name, module in reversed(list(model.named_modules())):
        for attribute, value in vars(module).items():
            if attribute not in _HELD_BY_TORCH and not _copies(value, kept):
                return f"attribute {'.'.join(filter(None, (name, attribute)))} ({type(value).__name__})"
        if not _copies(module, {**memo, **{id(child): child for child in module.children()}}):
            return f"module {name or 'itself'} ({type(module).__name__})"
    return "the model"

"""How a torch model is called, and what it answers: inputs by the names of a task, outputs of any structure by names.

Names of outputs:

- a tensor alone is ``out0``; those of tuples and lists, nested or not, are ``out0``, ``out1`` ... counted through;
- one of a dict has its key, one of a dataclass or named tuple its field, a Hugging Face ``ModelOutput`` being both;
- inside those, names and positions are joined: ``{"features": [a, b]}`` gives ``features_0`` and ``features_1``.

None stands for an output that is not there.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from edgedeploy.errors import Unsupported


def call(model: Any, inputs: Any) -> Any:
    """``model`` on a tensor, a tuple or list of tensors in its forward's order, or a dict of tensors by input name.

    A dict goes in by keyword where its names are parameters of the forward that stand elsewhere than at its beginning;
    otherwise in the order of the dict, whatever the forward calls its parameters.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs) if takes_keywords(model, tuple(inputs)) else model(*inputs.values())
    return model(*inputs) if isinstance(inputs, list | tuple) else model(inputs)


def takes_keywords(model: Any, names: Sequence[str]) -> bool:
    """Whether inputs of these names, in this order, have to be given to the model's forward by name."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError, AttributeError):  # one without a Python signature, such as a scripted module
        return False
    in_order = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    if in_order[: len(names)] == list(names):
        return False
    return named.issuperset(names) or (anything and len(in_order) < len(names))


def flat_tensors(outputs: Any) -> list[Any]:
    """The output tensors of a torch model in its own order. Raises ``Unsupported``."""
    return [tensor for _, tensor in _leaves(outputs, ())]


def named_tensors(outputs: Any, taken: Collection[str] = ()) -> dict[str, Any]:
    """The output tensors of a torch model by name, in its own order: the module's docstring has the rules.

    A name holds letters, digits and ``_``, occurs once, and is none of ``taken`` (the inputs'): ``image`` as an output
    beside the input ``image`` becomes ``image_out``. Raises ``Unsupported`` for anything that is no tensor.
    """
    found: dict[str, Any] = {}
    for place, (path, tensor) in enumerate(_leaves(outputs, ())):
        name = f"out{place}" if all(isinstance(part, int) for part in path) else _joined(path)
        if name in taken:
            name = f"{name}_out"
        found[name if name not in found else f"{name}_{place}"] = tensor
    if not found:
        raise Unsupported(
            "an output of the model", "its forward returns no tensor", "Return the tensors to be measured"
        )
    return found


def map_tensors(outputs: Any, function: Callable[[Any], Any]) -> Any:
    """The same structure with ``function(tensor)`` in place of every tensor, in the order of :func:`flat_tensors`."""
    if outputs is None or _is_tensor(outputs):
        return None if outputs is None else function(outputs)
    if isinstance(outputs, Mapping):
        changed = {key: map_tensors(value, function) for key, value in outputs.items()}
        if type(outputs) is dict:
            return changed
        made: Any = copy.copy(outputs)
        for key, value in changed.items():
            made[key] = value
        return made
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        made = copy.copy(outputs)
        for field in dataclasses.fields(outputs):
            object.__setattr__(made, field.name, map_tensors(getattr(outputs, field.name), function))
        return made
    if isinstance(outputs, list | tuple):
        items = [map_tensors(value, function) for value in outputs]
        return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)
    raise _no_tensor((), outputs)


def flat_model(model: Any, names: Sequence[str]) -> Any:
    """A module around ``model`` that takes the inputs ``names`` by position and returns its tensors as a flat tuple: what
    an exporter sees of any model. Plain tensors that the forward keeps as attributes are as before after each call."""
    from torch import nn

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.training = False

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            with _attributes_kept(self.model):
                outputs = call(self.model, dict(zip(names, tensors, strict=True)))
            return tuple(flat_tensors(outputs))

    return Flat()


def plain_model(model: Any) -> Any:
    """``model`` itself, out of the wrappers of ``torch.compile`` and of training on several devices."""
    from torch import nn

    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if value is None:
        return
    if _is_tensor(value):
        yield path, value
        return
    for part, inner in _parts(value, path):
        yield from _leaves(inner, (*path, part))


def _parts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), inner) for key, inner in value.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    else:
        raise _no_tensor(path, value)


def _no_tensor(path: Sequence[str | int], value: Any) -> Unsupported:
    place = f"output {_joined(path)!r}" if path else "the output"
    return Unsupported(
        "tensors as outputs of the model",
        f"{place} is of type {type(value).__name__}",
        "Return tensors from forward: one, or a tuple, list, dict or dataclass of them",
    )


def _joined(path: Sequence[str | int]) -> str:
    first = f"out{path[0]}" if isinstance(path[0], int) else path[0]
    return re.sub(r"[^0-9A-Za-z_]+", "_", "_".join(map(str, (first, *path[1:])))) or "out"


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


@contextmanager
def _attributes_kept(model: Any) -> Iterator[None]:
    """An exporter refuses a forward that leaves a tensor behind as an attribute (a kept feature map)."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            now = vars(module)
            for name in [name for name in now if _is_tensor(now[name]) and now[name] is not attributes.get(name)]:
                if name in attributes:
                    now[name] = attributes[name]
                else:
                    del now[name]

"""How many layers lie behind one another between a network's inputs and its answers, followed by shapes alone.

Layers are the operators that PyTorch counts multiply-accumulates of: convolutions and matrix products. What a layer computes
counts only where it hangs on an input and an answer hangs on it: a branch that leads nowhere adds nothing.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_MULTIPLY: Final = ("mul", "mul_")


class Chain(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is computed while it is entered. Memory counts, not tensors: what is written into a view is in the whole
    too, and what is written over stays, so that a count may be too high and is never too low."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers: dict[int, int] = {}
        self._kept: list[Any] = []
        """Tensors that were met: a memory that is given back could be another tensor's next."""
        for tensor in _tensors(inputs):
            self._note(tensor, 0)

    def longest(self, answers: Any) -> int | None:
        """Layers of the longest chain from an input to one of ``answers``; None where none of them hangs on an input."""
        found = [layers for tensor in _tensors(answers) if (layers := self._of(tensor)) is not None]
        return max(found, default=None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        behind = [layers for tensor in _tensors((args, given)) if (layers := self._of(tensor)) is not None]
        if behind and not _forgets(func, args):
            layers = max(behind) + (func.overloadpacket in flop_registry)
            for tensor in _tensors(result):
                self._note(tensor, max(layers, self._of(tensor) or 0))
        return result

    def _of(self, tensor: torch.Tensor) -> int | None:
        return self._layers.get(_memory(tensor))

    def _note(self, tensor: torch.Tensor, layers: int) -> None:
        self._layers[_memory(tensor)] = layers
        self._kept.append(tensor)


def _tensors(of: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor has several
        return id(tensor)


def _forgets(func: Any, args: Any) -> bool:
    """Whether the result hangs on none of the arguments' values: they gave a shape alone, or are multiplied by 0."""
    name = func.overloadpacket.__name__
    by_nothing = name in _MULTIPLY and len(args) > 1 and isinstance(args[1], (int, float)) and args[1] == 0
    return bool(by_nothing or name.endswith("_like") or name.startswith("new_") or name in ("zero_", "fill_"))

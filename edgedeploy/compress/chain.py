"""How many layers lie behind one another between a network's inputs and its answers, and how many multiply-accumulates they
are, followed by shapes alone.

Layers are convolutions, and products of matrices and vectors. What is computed of weights alone, such as their norm, is a
constant of the artifact and no layer. The chain is that of layers which hang on an input and which an answer hangs on: a
branch that leads nowhere adds nothing to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_MULTIPLY: Final = ("mul", "mul_")


def _by_a_vector(matrix: torch.Tensor, *_: Any, **__: Any) -> int:
    return 2 * matrix.numel()


def _of_vectors(vector: torch.Tensor, *_: Any, **__: Any) -> int:
    return 2 * vector.numel()


def _added_to(_: torch.Tensor, first: torch.Tensor, second: torch.Tensor, **__: Any) -> int:
    return 2 * first.numel() * (second.shape[-1] if second.ndim > 1 else 1)


def _conv_tbc(_: torch.Tensor, weights: torch.Tensor, *__: Any, out_val: torch.Tensor, **___: Any) -> int:
    return 2 * out_val.numel() * weights.shape[0] * weights.shape[1]


def _bilinear(first: torch.Tensor, weights: torch.Tensor, *_: Any, **__: Any) -> int:
    """Of ``torch.nn.functional.bilinear``, which multiplies each of its weights once a row."""
    return 2 * first.shape[0] * weights.numel()


_FORMULAS: Final[Mapping[Any, Callable[..., int]]] = {
    **flop_registry,
    torch.ops.aten.mv: _by_a_vector,
    torch.ops.aten.dot: _of_vectors,
    torch.ops.aten.vdot: _of_vectors,
    torch.ops.aten.addmv: _added_to,
    torch.ops.aten.addmv_: _added_to,
    torch.ops.aten.addmm_: _added_to,
    torch.ops.aten.addbmm: _added_to,
    torch.ops.aten.addbmm_: _added_to,
    torch.ops.aten.baddbmm_: _added_to,
    torch.ops.aten.conv_tbc: _conv_tbc,
    torch.ops.aten._trilinear: _bilinear,
}
"""Operations of a layer by its arguments, two for each multiply-accumulate: PyTorch's, and those that it leaves out."""


class Chain(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is computed while it is entered. Memory counts, not tensors: what is written into a view is in the whole
    too, and what is written over stays, so that a count may be too high and is never too low."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers: dict[int, int] = {}
        self._fed: set[int] = set()
        """Memories of what is not of weights alone: a first state of zeros is multiplied in each inference too."""
        self._operations = 0
        self._kept: list[Any] = []
        """Tensors that were met: a memory that is given back could be another tensor's next."""
        for tensor in _tensors(inputs):
            self._note(tensor, 0)
            self._fed.add(_memory(tensor))

    @property
    def macs(self) -> float:
        """Multiply-accumulates of all layers, those of branches that lead nowhere too."""
        return self._operations / 2

    def longest(self, answers: Any) -> int | None:
        """Layers of the longest chain from an input to one of ``answers``; None where none of them hangs on an input."""
        found = [layers for tensor in _tensors(answers) if (layers := self._of(tensor)) is not None]
        return max(found, default=None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func.overloadpacket not in _FORMULAS:
            with self:  # in inference mode what consists of others comes whole
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **given)
        read, formula = _tensors((args, given)), _FORMULAS.get(func.overloadpacket)
        forgets = _forgets(func, args)
        if not read or forgets or any(_memory(tensor) in self._fed for tensor in read):
            self._operations += formula(*args, **given, out_val=result) if formula else 0
            self._fed.update(map(_memory, _tensors(result)))
            self._kept += _tensors(result)
        behind = [layers for tensor in read if (layers := self._of(tensor)) is not None]
        if behind and not forgets:
            for tensor in _tensors(result):
                self._note(tensor, max(max(behind) + bool(formula), self._of(tensor) or 0))
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

"""Whether a model answers the same input alike, and what in it does not: dropout left on, noise, state between calls.

An exported file computes one answer. A model that draws random numbers in evaluation mode has none to compare with, and
would be frozen in one of its draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from edgedeploy.errors import BuildError
from edgedeploy.interfaces.task import Array
from edgedeploy.reference.graph import RANDOM_OPERATORS
from edgedeploy.reference.translate import users_line

PASSES: Final = 8
"""Forward passes of a model that draws random numbers, to see whether they matter. A model that drops a block with
probability 0.2 is missed by one in six."""

_ASKED: Final = "the same answer to the same input"
_REMEDY: Final = "Switch it off in evaluation mode (self.training), or set its probability to 0 in build()"


def check_repeatable(model: Any, forward: Callable[[], Mapping[str, Array]], tolerance: float) -> Mapping[str, Array]:
    """The outputs of ``forward``, a pass of ``model`` in evaluation mode. Raises ``BuildError`` naming the layer and line
    when further passes differ by more than ``tolerance`` (relative L2)."""
    with _generators_kept():
        before = _generators()
        first = forward()
        draws = _drawn(before)
        for seed in range(1, PASSES if draws else 2):
            if draws:
                _seed(seed)
            again = forward()
            changed = next((name for name, value in first.items() if _differ(value, again.get(name), tolerance)), None)
            if changed is not None:
                raise BuildError(
                    _ASKED,
                    f"output {changed!r} differs between two passes in evaluation mode: {_cause(model, forward, draws)}",
                    _REMEDY if draws else "Make the forward a function of its inputs alone",
                )
    return first


def check_random_nodes(graph: Any) -> None:
    """Raises ``BuildError`` when an exported ONNX model draws random numbers."""
    for node in graph.node:
        if node.op_type in RANDOM_OPERATORS:
            raise BuildError(_ASKED, f"the model draws random numbers: node {node.name!r} ({node.op_type})", _REMEDY)


def _differ(first: Array, again: Array | None, tolerance: float) -> bool:
    import numpy as np

    if again is None or first.shape != again.shape:
        return True
    wanted, found = first.astype(np.float64), again.astype(np.float64)
    return float(np.linalg.norm(found - wanted)) > tolerance * float(np.linalg.norm(wanted)) + 1e-6


def _cause(model: Any, forward: Callable[[], object], draws: list[str]) -> str:
    """Where a forward draws its random numbers, as far as torch can tell."""
    found = _random_operators(model, forward)
    if found:
        return f"the model draws random numbers: {'; '.join(found[:3])}"
    if draws:
        return f"the model draws random numbers of {' and '.join(draws)}"
    return "it keeps state between calls, or draws from a generator of its own"


def _random_operators(model: Any, forward: Callable[[], object]) -> list[str]:
    """Each random operator of a pass: its name, the module that runs it, the user's line."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    trail = Trail(model)
    found: dict[str, None] = {}

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if torch.Tag.nondeterministic_seeded in func.tags and "attention" not in func.__name__:
                place = users_line()
                found[f"{trail.where()} ({func.__name__.partition('.')[0]}{f' at {place}' if place else ''})"] = None
            return func(*args, **(kwargs or {}))

    with trail, Watch():  # type: ignore[no-untyped-call]
        forward()
    return list(found)


class Trail:
    """Follows which module of a model is running. After an error it still says in which module that happened."""

    def __init__(self, model: Any) -> None:
        self._names = {id(module): (name, type(module).__name__) for name, module in model.named_modules()}
        self._model = model
        self._running: list[int] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> Trail:
        for module in self._model.modules():
            self._hooks.append(module.register_forward_pre_hook(self._enter))
            self._hooks.append(module.register_forward_hook(self._leave))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def where(self) -> str:
        """The running module: its name and class."""
        name, kind = self._names.get(self._running[-1] if self._running else 0, ("", "forward"))
        return f"{name} {kind}" if name else kind

    def _enter(self, module: Any, inputs: object) -> None:
        self._running.append(id(module))

    def _leave(self, module: Any, inputs: object, outputs: object) -> None:
        self._running.pop()


def _generators() -> dict[str, Any]:
    import random

    import numpy as np
    import torch

    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "Python": random.getstate()}


def _drawn(before: Mapping[str, Any]) -> list[str]:
    """The generators that have moved since ``before``."""
    now = _generators()
    moved = {
        "torch": not bool((before["torch"] == now["torch"]).all()),
        "numpy": before["numpy"][2] != now["numpy"][2] or (before["numpy"][1] != now["numpy"][1]).any(),
        "Python": before["Python"] != now["Python"],
    }
    return [name for name, changed in moved.items() if changed]


def _seed(seed: int) -> None:
    import random

    import numpy as np
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _generators_kept() -> Iterator[None]:
    import random

    import numpy as np
    import torch

    before = _generators()
    try:
        yield
    finally:
        torch.set_rng_state(before["torch"])
        np.random.set_state(before["numpy"])
        random.setstate(before["Python"])

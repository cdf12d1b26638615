"""Options of the tasks that ship, from the ``[task.options]`` table of a study file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeVar

from edgedeploy.errors import SpecError, nearest
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.images.rules import read_page, read_value_range

T = TypeVar("T")

_READ: Final[Mapping[str, Callable[[Any, str], Any]]] = {"value_range": read_value_range, "page": read_page}
"""Options of every task that reads images."""


@dataclass(frozen=True)
class SegmentationOptions:
    """Model, training and sizes of a segmentation task.

    - ``resolutions``: sides of the square that images are squeezed to, the baseline's first; multiples of
      2 to the ``depth``.
    - ``base_channels``: channels of the U-Net at full size.
    - ``depth``: its steps down.
    - ``seed``: decides its first weights.
    - ``baseline``: how the baseline is trained.
    - ``recovery``: how a pruned variant is trained further.
    """

    resolutions: tuple[int, ...] = (128, 96, 64)
    base_channels: int = 8
    depth: int = 4
    seed: int = 0
    baseline: TrainRecipe = field(default_factory=lambda: TrainRecipe(epochs=30, batch_size=8, learning_rate=3e-3))
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=4, batch_size=8, learning_rate=1.5e-3, distill_weight=0.5)
    )

    def __post_init__(self) -> None:
        at_least(self, base_channels=1, depth=1, seed=0)
        step = 1 if getattr(self, "network", "") else 2**self.depth  # depth is of the kind's own network
        for side in self.resolutions:
            if side % step or side < 2 * step:
                raise ValueError(
                    f"resolutions must be multiples of {step} (2^depth) and at least {2 * step}, but got {side}"
                )
        for recipe in (self.baseline, self.recovery):
            _check_early(recipe, step)


def at_least(options: object, **smallest: int) -> None:
    """Raises ``ValueError`` naming the option of ``options`` that is below its smallest legal value."""
    for name, bound in smallest.items():
        value = getattr(options, name)
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, but got {value}")


def _check_early(recipe: TrainRecipe, step: int) -> None:
    """Raises ``ValueError`` unless the early epochs change the resolution alone, to one that the network takes."""
    for key, side in recipe.early_arch.items():
        if key != "resolution":
            raise ValueError(f"early_arch may change the resolution alone, but got {key!r}")
        if not isinstance(side, int) or side % step or side < 2 * step:
            raise ValueError(f"early_arch.resolution must be a multiple of {step} from {2 * step} on, but got {side!r}")


def check_recipe(recipe: TrainRecipe) -> None:
    """Raises ``ValueError`` for a recipe that cannot train anything. Batches of one break batch normalisation."""
    at_least(recipe, epochs=1, batch_size=2, seed=0, warmup_epochs=0, weight_decay=0, early_epochs=0)
    if recipe.early_epochs > recipe.epochs:
        most, got = recipe.epochs, recipe.early_epochs
        raise ValueError(
            f"early_epochs are some of the {most} epochs, but got {got}: write them beside epochs, 0 to {most}"
        )
    if not recipe.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, but got {recipe.learning_rate}")
    if not 0 <= recipe.distill_weight <= 1:
        raise ValueError(f"distill_weight is a share, 0 to 1, but got {recipe.distill_weight}")


def read_options(kind: type[T], defaults: T, table: Mapping[str, Any], where: str) -> T:
    """``defaults`` changed by ``table``. Nested tables change recipes. Raises ``SpecError`` with the key that is wrong."""
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{where}.{key}"
        if key not in known:
            raise SpecError(path, "unknown option", nearest(key, known))
        current = getattr(defaults, key)
        if isinstance(current, TrainRecipe):
            if not isinstance(value, Mapping):
                raise SpecError(path, f"expected a table, but got {as_toml(value)}")
            changes[key] = read_options(TrainRecipe, current, value, path)
        elif key in _READ:
            changes[key] = _READ[key](value, path)
        else:
            changes[key] = _same_kind(value, current, path)
    try:
        options = replace(defaults, **changes)  # type: ignore[type-var]
        if isinstance(options, TrainRecipe):
            check_recipe(options)
        return options
    except ValueError as exc:
        raise SpecError(where, str(exc)) from None


def _same_kind(value: Any, current: Any, path: str) -> Any:
    """``value`` if it is of the default's type (an int may stand for a float, a list for a tuple)."""
    if isinstance(current, tuple) and isinstance(value, list):
        kind = (int, float) if isinstance(current[0], float) else type(current[0])
        if all(isinstance(item, kind) and not isinstance(item, bool) for item in value) and value:
            return tuple(type(current[0])(item) for item in value)
    elif isinstance(current, Mapping) and isinstance(value, Mapping):
        kinds = {type(item) for item in current.values()} or {bool, int, float, str}
        if value and all(type(item) in kinds for item in value.values()):
            return dict(value)
    elif isinstance(current, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, type(current)) and isinstance(value, bool) == isinstance(current, bool):
        return value
    raise SpecError(path, f"expected a value such as {as_toml(current)}, but got {as_toml(value)}")


def as_toml(value: Any) -> str:
    """A value as a study file has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {as_toml(item)}' for key, item in value.items())} }}" if value else "{}"
    return str(value)

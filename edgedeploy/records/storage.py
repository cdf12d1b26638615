"""How a variant's weights are shipped: the value of ``storage`` in a search space, as it is written and as it is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Method = Literal["none", "int8-zstd", "uniform", "ratio", "hyper"]

NO_STORAGE: Final = "none"
WAYS: Final = 'write "none", "int8-zstd", "uniform:0.3" (a step in deviations), "uniform:12x" (of float32), "hyper:4"'
MOST_SIGMAS: Final = 16.0
MOST_RATIO: Final = 32.0


@dataclass(frozen=True)
class Storage:
    """``size`` is the step or the side in standard deviations of a layer, or what float32 takes over what is shipped; 0
    where the method has none. ``text`` is what a variant keeps: empty for weights as they are."""

    text: str
    method: Method
    size: float = 0.0


def storage_of(value: object) -> Storage:
    """Raises ``ValueError`` for a value that means nothing."""
    if value in (NO_STORAGE, ""):
        return Storage("", "none")
    if value == "int8-zstd":
        return Storage("int8-zstd", "int8-zstd")
    name, _, told = str(value).partition(":")
    ratio = told.endswith("x")
    if not isinstance(value, str) or name not in ("uniform", "hyper") or (ratio and name != "uniform"):
        raise ValueError(f"{value!r} names no way to ship weights: {WAYS}")
    try:
        size = float(told.removesuffix("x"))
    except ValueError:
        raise ValueError(f"{value!r} has no number: {WAYS}") from None
    most = MOST_RATIO if ratio else MOST_SIGMAS
    least = 1.0 if ratio else 0.01
    if not least <= size <= most:
        raise ValueError(f"{value!r}: {least:g} to {most:g} must hold, but got {size:g}")
    if ratio:
        return Storage(f"uniform:{size:g}x", "ratio", size)
    return Storage(f"{name}:{size:g}", "uniform" if name == "uniform" else "hyper", size)

"""How far a result has been proved. This is stored with the result, so that no CPU check is taken for a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Each level includes those before it. ``PARSED`` and ``BUILT`` come from TensorRT for RTX on this host's CPU: a proxy
    for the board's TensorRT, not proof. ``MEASURED`` needs the GPU that ran it."""

    LINT = "lint"
    PARSED = "parsed"
    BUILT = "built"
    MEASURED = "measured"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True)
class Evidence:
    """``by`` is the tool that proved the level; ``note`` says what remains unproved."""

    level: Level
    by: str
    note: str

    def as_json(self) -> dict[str, Any]:
        return {"level": self.level.value, "by": self.by, "note": self.note}

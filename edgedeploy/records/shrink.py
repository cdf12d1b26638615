"""What a variant leaves out of a network besides channels: heads, MLP features, blocks, rank, tokens; or another network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

Value = bool | int | float | str

NO_STUDENT: Final = "none"

SHARES: Final = ("heads", "mlp", "depth", "rank", "tokens")
"""Search parameters that are shares from above 0 to 1; 1 leaves the network as it is."""

SHRINK_KEYS: Final = (*SHARES, "student")
"""Search parameters of this module. One that the task's own ``build`` has too is the task's."""


@dataclass(frozen=True, order=True)
class Shrink:
    """Shares that stay, each 1 for all of it, and the network that is trained in the place of the task's.

    - ``heads``: of each layer's attention heads. ``mlp``: of each MLP's hidden features. ``depth``: of the blocks.
    - ``rank``: of the rank of each linear layer and convolution that is cheaper as factors of it.
    - ``tokens``: of the tokens that the blocks after the first third see.
    - ``student``: the name of the task's student; empty for the task's own network.
    """

    heads: float = 1.0
    mlp: float = 1.0
    depth: float = 1.0
    rank: float = 1.0
    tokens: float = 1.0
    student: str = ""

    def __bool__(self) -> bool:
        return self != NO_SHRINK

    def as_json(self) -> dict[str, Any]:
        """What differs from the whole network, by the names of the search parameters."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(NO_SHRINK, name)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shrink:
        """Raises ``ValueError`` or ``TypeError`` for data that :meth:`as_json` cannot have written."""
        read: dict[str, Any] = {name: (str if name == "student" else float)(value) for name, value in data.items()}
        found = cls(**read)
        if not all(0.0 < getattr(found, name) <= 1.0 for name in SHARES):
            raise ValueError(f"shares: expected numbers above 0 and at most 1, but got {dict(data)!r}"[:160])
        return found

    @classmethod
    def of(cls, params: Mapping[str, Value], owned: Collection[str]) -> Shrink:
        """Of proposed parameters; those that the task has itself (``owned``) are none of ours. A student is a network of its
        own, of which nothing is left out."""
        ours = {name: params[name] for name in SHRINK_KEYS if name in params and name not in owned}
        student = str(ours.pop("student", NO_STUDENT))
        if student != NO_STUDENT:
            return cls(student=student)
        shares: dict[str, Any] = {name: round(float(value), 6) for name, value in ours.items()}
        return cls(**shares)

    @property
    def settings(self) -> dict[str, Value]:
        """Every search parameter with its value."""
        return {**{name: getattr(self, name) for name in SHARES}, "student": self.student or NO_STUDENT}

    @property
    def label(self) -> str:
        """Text for people: what differs from the whole network."""
        return " ".join(
            f"{name}={value if name == 'student' else f'{value:g}'}" for name, value in self.as_json().items()
        )


NO_SHRINK: Final = Shrink()

"""When a parameter of a search space matters at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgedeploy.records.variant import Scalar


@dataclass(frozen=True)
class Condition:
    """``parameter`` matters only where each parameter in ``when`` has one of its values there, as the space lists them."""

    parameter: str
    when: Mapping[str, tuple[Scalar, ...]]

    def holds(self, params: Mapping[str, Scalar]) -> bool:
        return all(
            any(type(value) is type(params.get(name)) and value == params.get(name) for value in values)
            for name, values in self.when.items()
        )

    def among(self, names: Collection[str]) -> Condition:
        """What it asks of these parameters alone."""
        return Condition(self.parameter, {name: values for name, values in self.when.items() if name in names})

    @property
    def text(self) -> str:
        """For people: ``with precision = 'int8' and target = 'onnxruntime' or 'litert'``."""
        parts = (f"{name} = {' or '.join(map(repr, values))}" for name, values in self.when.items())
        return f"with {' and '.join(parts)}"
